#include "gateway/core/http_target.h"

#include <gtest/gtest.h>

namespace expertmesh::gateway {
namespace {

TEST(HttpTarget, Doors) {
  struct Case {
    const char* target;
    Door door;
    const char* model = "";
  };
  const Case cases[] = {
      {"/v1/chat/completions", Door::kChat},
      {"/chat/completions", Door::kChat},
      {"/v1/chat/completions?api-version=1", Door::kChat},
      {"http://host:80/v1/chat/completions", Door::kChat},
      {"/v1/completions", Door::kCompletions},
      {"/completions#x", Door::kCompletions},
      {"/v1/models", Door::kModels},
      {"/models", Door::kModels},
      {"/v1/models/tiny-v3", Door::kModel, "tiny-v3"},
      {"/models/a%2Fb", Door::kModel, "a/b"},
      {"/models/org/name", Door::kModel, "org/name"},
      {"/models/50%", Door::kModel, "50%"},
      {"/models/%zz", Door::kModel, "%zz"},
      {"/", Door::kHint},
      {"/v1", Door::kHint},
      {"http://host", Door::kHint},
      {"/v1/models/", Door::kUnknown},
      {"/v1/chat/completions/", Door::kUnknown},
      {"/v1/v1/models", Door::kUnknown},
      {"/v1/embeddings", Door::kEmbeddings},
      {"/v1/responses", Door::kResponses},
      {"/responses", Door::kResponses},
      {"/anthropic/v1/messages", Door::kMessages},
      {"/v1/messages", Door::kMessages},
      {"/anthropic/v1/messages/count_tokens", Door::kCountTokens},
      {"/beta/completions", Door::kCompletions},
      {"/beta/v1/chat/completions", Door::kChat},
      {"/anthropicx/v1/messages", Door::kUnknown},
      {"", Door::kUnknown},
      {"*", Door::kUnknown},
      {"/metrics", Door::kUnknown},
  };
  for (const Case& c : cases) {
    const HttpTarget target = ParseTarget(c.target);
    EXPECT_EQ(target.door, c.door) << c.target;
    EXPECT_EQ(target.model, c.model) << c.target;
  }
}

TEST(HttpTarget, PathsInMessagesArePrintable) {
  EXPECT_EQ(ParseTarget("/\xff\n\x01x?secret").path, "/???x");
  EXPECT_EQ(ParseTarget("/" + std::string(500, 'a')).path, "/" + std::string(79, 'a') + "...");
}

TEST(HttpTarget, CleanIds) {
  EXPECT_TRUE(IsCleanId("req-1.A_b"));
  EXPECT_TRUE(IsCleanId(std::string(128, 'x')));
  for (const std::string& id : {std::string(), std::string(129, 'x'), std::string("a b"),
                                std::string("a\r\nb"), std::string("é"), std::string("a\0b", 3)}) {
    EXPECT_FALSE(IsCleanId(id)) << id;
  }
}

}  // namespace
}  // namespace expertmesh::gateway
