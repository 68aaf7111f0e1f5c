#include "services/example/core/word_count.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "services/base/status.h"

namespace expertmesh::example {
namespace {

TEST(CountWords, CountsRunsBetweenSpaces) {
  const std::map<std::string, uint32_t> cases = {
      {"one", 1}, {"two words", 2}, {"  a   b  ", 2}, {" ", 0}, {"a-b\nc", 1}};
  for (const auto& [text, words] : cases) EXPECT_EQ(*CountWords(text), words) << text;
}

TEST(CountWords, RefusesNothing) {
  EXPECT_EQ(base::ReasonOf(CountWords("").status()), base::Reason::kInvalidArgument);
}

}  // namespace
}  // namespace expertmesh::example
