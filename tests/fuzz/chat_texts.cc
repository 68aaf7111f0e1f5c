// Python source of a model repository, and JSON of conversations: read, never run, never a crash.
#include "model/tokenizer/chat_texts.h"

#include "model/tokenizer/chat_json.h"
#include "model/tokenizer/python_json.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  const std::string_view text = fuzz::Text(data, size);
  const std::string constant = model::PythonStringConstant(text, "A");
  fuzz::Require(constant.size() <= size, "a literal is no longer than its source");
  const auto value = model::ParseJson(text);
  if (!value.has_value()) return 0;
  const std::string again = model::PythonJson(*value);
  // Python's word for numbers beyond a double is no JSON.
  const bool infinite = again.find("Infinity") != std::string::npos;
  fuzz::Require(infinite || model::ParseJson(again).has_value(), "still JSON");
  (void)model::ChatMessagesFromJson(*value).ok();
  return 0;
}
