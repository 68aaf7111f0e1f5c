#include "services/rpc/unix_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "services/base/status.h"
#include "tests/services/rpc/temp_folder.h"

namespace expertmesh::rpc {
namespace {

using base::Reason;

// A listening socket's descriptor; closing it leaves the file behind.
int ListenAt(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(fd, 1), 0);
  return fd;
}

TEST(UnixSocket, FindsThePath) {
  EXPECT_EQ(UnixPath("unix:/run/a.sock"), "/run/a.sock");
  EXPECT_EQ(UnixPath("unix:///run/a.sock"), "/run/a.sock");
  EXPECT_EQ(UnixPath("unix:a.sock"), "a.sock");
  EXPECT_EQ(UnixPath("127.0.0.1:0"), std::nullopt);
}

TEST(UnixSocket, RemovesWhatADeadProcessLeft) {
  TempFolder folder;
  const std::string path = folder.path("s");
  close(ListenAt(path));
  ASSERT_TRUE(std::filesystem::exists(path));
  EXPECT_TRUE(ClearUnixPath(path).ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(ClearUnixPath(path).ok());
}

TEST(UnixSocket, LeavesALivingSocketAlone) {
  TempFolder folder;
  const std::string path = folder.path("s");
  const int fd = ListenAt(path);
  EXPECT_EQ(base::ReasonOf(ClearUnixPath(path)), Reason::kInvalidArgument);
  EXPECT_TRUE(std::filesystem::exists(path));
  close(fd);
}

TEST(UnixSocket, LeavesAFileAlone) {
  TempFolder folder;
  const std::string path = folder.path("file");
  std::ofstream(path) << "precious";
  EXPECT_EQ(base::ReasonOf(ClearUnixPath(path)), Reason::kInvalidArgument);
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST(UnixSocket, NamesTheLengthLimit) {
  EXPECT_EQ(base::ReasonOf(ClearUnixPath("")), Reason::kInvalidArgument);
  EXPECT_EQ(base::ReasonOf(ClearUnixPath("/tmp/" + std::string(103, 'a'))),
            Reason::kInvalidArgument);
  EXPECT_TRUE(ClearUnixPath("/tmp/" + std::string(102, 'a')).ok());
}

}  // namespace
}  // namespace expertmesh::rpc
