// Bodies and SSE events of /v1/responses. Pure.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "gateway/core/answer_format.h"

namespace expertmesh::gateway {

/// What a response repeats of its request.
struct ResponsesHead {
  std::string digits = {};  // the ids are "resp_…", "msg_…", "rs_…" and "fc_…" with these
  int64_t created = 0;      // Unix seconds
  std::string model = {};
  float temperature = 1.0f;
  float top_p = 1.0f;
  uint32_t max_tokens = 0;  // 0 = not said
  bool parallel_calls = true;
  std::string text_format = {};  // text.format as it was asked for, JSON; "" = text
};

class ResponsesFormat final : public AnswerFormat {
 public:
  explicit ResponsesFormat(ResponsesHead head) : head_(std::move(head)) {}

  std::string Begin(const Usage& usage) override;
  std::string Delta(uint32_t choice, const ChoiceParts& parts, size_t first_call) override;
  std::string EndChoice(uint32_t choice, const WholeChoice& end, const Usage& usage) override;
  std::string End(const Usage& usage) override;
  std::string Fail(const ApiError& error) override;
  std::string Whole(const std::vector<WholeChoice>& choices, const Usage& usage) override;

 private:
  enum class Item { kNone, kReasoning, kMessage };
  boost::json::object Response(const char* status) const;
  boost::json::object Ended(Ending ending, const Usage& usage) const;
  boost::json::object ItemObject(Item item, const std::string& text, const char* status) const;
  boost::json::object CallItem(const ToolCall& call) const;
  boost::json::object Part(Item item, const std::string& text) const;
  std::string Id(const char* kind) const;
  std::string Event(const char* type, boost::json::object fields);
  std::string Open(Item item);
  std::string Close();
  std::string Call(const ToolCall& call);

  const ResponsesHead head_;
  Item open_ = Item::kNone;
  std::string text_;           // of the open item
  boost::json::array output_;  // items that are complete
  uint64_t sequence_ = 0;
};

}  // namespace expertmesh::gateway
