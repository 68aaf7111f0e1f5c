#include "model/tokenizer/chat_texts.h"

#include <filesystem>

#include "tests/model/tokenizer/tokenizer_fixture.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::model {
namespace {

using test_support::WriteFile;

TEST(ChatTexts, PythonConstants) {
  const std::string source =
      "import json\n"
      "ONE: str = \"a\\n{x}\"  # comment\n"
      "TWO = \"\"\"## B\n\n\"q\" \\\"r\\\"\n\"\"\"\n"
      "THREE = (\n    \"c\\t\"\n    'd\\'e'\n)\n"
      "BROKEN = \"never closed\n";
  EXPECT_EQ(PythonStringConstant(source, "ONE"), "a\n{x}");
  EXPECT_EQ(PythonStringConstant(source, "TWO"), "## B\n\n\"q\" \"r\"\n");
  EXPECT_EQ(PythonStringConstant(source, "THREE"), "c\td'e");
  EXPECT_EQ(PythonStringConstant(source, "BROKEN"), "");
  EXPECT_EQ(PythonStringConstant(source, "FOUR"), "");
  EXPECT_EQ(PythonStringConstant("", ""), "");
}

TEST(ChatTexts, FromTheEncoderOfTheModel) {
  test_support::TempDir dir;
  std::filesystem::create_directory(dir / "encoding");
  WriteFile(dir / "encoding/encoding_dsv32.py",
            "TOOLS_SYSTEM_TEMPLATE = \"\"\"<{dsml_token}x> {{y}} {thinking_start_token}\n"
            "{tool_schemas}\"\"\"\n"
            "response_format_template: str = (\n    \"F {schema}\"\n)\n"
            "def f():\n    content_developer += \"\\n\"\n"
            "    content_developer += \"\\nsaid: {}\".format(content)\n");
  const auto texts = LoadChatTexts(dir.path(), "v3.2");
  ASSERT_TRUE(texts.ok()) << texts.status();
  EXPECT_EQ(texts->tools, "<｜DSML｜x> {y} <think>\n{tool_schemas}");
  EXPECT_EQ(texts->response_format, "F {schema}");
  EXPECT_EQ(texts->developer, "\nsaid: {content}");
  EXPECT_EQ(texts->hash.size(), 64u);
  EXPECT_EQ(LoadChatTexts(dir.path(), "v3.1")->source, "own wording");
  WriteFile(dir / "encoding/encoding_dsv32.py", "nothing = 1\n");
  EXPECT_EQ(base::ReasonOf(LoadChatTexts(dir.path(), "v3.2").status()),
            base::Reason::kBadTokenizer);
}

TEST(ChatTexts, FromAFileOfTheUser) {
  test_support::TempDir dir;
  EXPECT_EQ(LoadChatTexts(dir.path(), "v4")->source, "own wording");
  WriteFile(dir / "chat_texts.json", R"({"tools": "mine {tool_schemas}"})");
  const auto texts = LoadChatTexts(dir.path(), "v3.1");
  ASSERT_TRUE(texts.ok()) << texts.status();
  EXPECT_EQ(texts->tools, "mine {tool_schemas}");
  EXPECT_EQ(texts->response_format, OwnChatTexts("v3.1").response_format);
  for (const char* bad : {"", "[]", R"({"tools": 1})", R"({"tuls": "x"})"}) {
    WriteFile(dir / "chat_texts.json", bad);
    const absl::Status status = LoadChatTexts(dir.path(), "v3.1").status();
    EXPECT_EQ(base::ReasonOf(status), base::Reason::kBadTokenizer) << bad;
    EXPECT_THAT(std::string(status.message()), ::testing::Not(::testing::HasSubstr("\n")));
  }
}

}  // namespace
}  // namespace expertmesh::model
