#include "tests/gateway/gateway_fixture.h"

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "model/tokenizer/preset_writer.h"

namespace expertmesh::gateway {

namespace {
constexpr uint32_t kVocab = 2000;
}

std::string Post(const std::string& path, const std::string& body, const std::string& headers) {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: t\r\nContent-Length: ", body.size(),
                      "\r\n", headers, "\r\n", body);
}

std::string ChatBody(const std::string& more) {
  return absl::StrCat(R"({"model":"tiny","messages":[{"role":"user","content":"hi"}])",
                      more.empty() ? "" : ",", more, "}");
}

std::string Answered::Header(const std::string& name) const {
  const std::string lower = absl::AsciiStrToLower(head);
  const size_t at = lower.find("\r\n" + name + ": ");
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 4;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

Answered TakeAnswer(std::string& bytes) {
  Answered answer;
  const size_t head_end = bytes.find("\r\n\r\n");
  if (head_end == std::string::npos) return answer;
  answer.head = bytes.substr(0, head_end + 2);
  answer.status = std::atoi(answer.head.c_str() + sizeof("HTTP/1.1"));
  bytes.erase(0, head_end + 4);
  if (answer.Header("transfer-encoding") == "chunked") {
    for (size_t end; (end = bytes.find("\r\n")) != std::string::npos;) {
      const size_t size = std::strtoul(bytes.c_str(), nullptr, 16);
      if (bytes.size() < end + 4 + size) break;
      answer.body += bytes.substr(end + 2, size);
      bytes.erase(0, end + 4 + size);
      if (size > 0) continue;
      answer.complete = true;
      break;
    }
    return answer;
  }
  const std::string length = answer.Header("content-length");
  const size_t size = length.empty() ? bytes.size() : std::strtoul(length.c_str(), nullptr, 10);
  answer.complete = bytes.size() >= size;
  answer.body = bytes.substr(0, size);
  bytes.erase(0, size);
  return answer;
}

GatewayTest::GatewayTest() {
  lifecycle::ProcessOptions options;
  options.role = "gateway";
  options.log_level = "off";
  process_ = lifecycle::Process::Start(options, &metrics_).value();
  counters_.emplace(metrics_, kModel);
  mesh_ = std::make_unique<MeshView>(kModel, *process_);
  api_.model = kModel;
  api_.config.vocab_size = kVocab;
  api_.config.max_position_embeddings = kContext;
  api_.tokenizer = model::Tokenizer::FromJson(model::PresetTokenizerJson(kVocab).value()).value();
  api_.config.bos_token_id = 0;
  api_.encoding = model::ChatEncoding::kV31;
  api_.created = 1700000000;
  api_.mesh = mesh_.get();
  api_.metrics = &*counters_;
  worker_.Follow(Says(Ids("Hello")));
}

GatewayTest::~GatewayTest() { http_.reset(); }

void GatewayTest::StartHttp(HttpServer::Options options) {
  options.listen = "127.0.0.1:0";
  auto server = HttpServer::Start(options, api_);
  ASSERT_TRUE(server.ok()) << server.status();
  http_ = *std::move(server);
}

std::string GatewayTest::Address() {
  if (http_ == nullptr) {
    StartHttp();
    mesh_->OnView(View());
  }
  return http_->address();
}

Answered GatewayTest::Ask(const std::string& request) {
  lifecycle::TestConnection connection(Address());
  connection.Send(request);
  std::string bytes = connection.ReadAll();
  const Answered answer = TakeAnswer(bytes);
  EXPECT_EQ(bytes, "");
  return answer;
}

Answered GatewayTest::AskChat(const std::string& more) {
  return Ask(Post("/v1/chat/completions", ChatBody(more), "Connection: close\r\n"));
}

router::v1::View GatewayTest::View(const std::function<void(router::v1::View&)>& change) const {
  router::v1::View view;
  auto* member = view.add_members();
  auto* hello = member->mutable_hello();
  hello->set_role(common::v1::ROLE_ATTENTION_WORKER);
  hello->set_name("attention-0");
  hello->set_address(worker_.address());
  hello->set_profile("bf16");
  hello->mutable_model()->set_model(kModel);
  hello->mutable_model()->set_revision("0123456789abcdef");
  member->mutable_report()->set_ready(true);
  view.mutable_placement()->mutable_epoch()->set_number(1);
  if (change) change(view);
  return view;
}

std::vector<uint32_t> GatewayTest::Ids(const std::string& text) const {
  return api_.tokenizer->Encode(text, false).value();
}

double GatewayTest::Metric(const std::string& series) const {
  const std::string text = "\n" + metrics_.Serialize();
  const size_t at = text.find("\nexpertmesh_gateway_" + series + " ");
  return at == std::string::npos ? 0 : std::atof(text.c_str() + text.find(' ', at));
}

}  // namespace expertmesh::gateway
