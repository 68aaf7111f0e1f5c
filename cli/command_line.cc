#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <ostream>
#include <string>
#include <thread>

#include "absl/strings/str_join.h"
#include "cli/engram_flags.h"
#include "cli/eval_flags.h"
#include "cli/model_commands.h"
#include "cli/tokenizer_commands.h"
#include "model/writer/converter.h"
#include "model/writer/presets.h"
#include "services/lifecycle/process.h"

namespace expertmesh::cli {
namespace {

using Command = std::function<absl::Status(const Output&)>;

int Fail(std::ostream& err, std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  err << "expertmesh: " << text << "\n";
  return 1;
}

void AddInit(CLI::App& model, InitOptions& options, Command& command) {
  CLI::App* init = model.add_subcommand("init", "Write a model directory with random weights");
  init->add_option("--preset", options.preset,
                   "Shape: " + absl::StrJoin(model::WrittenPresetNames(), ", "))
      ->required();
  init->add_option("--out", options.directory, "Directory to make; must not exist or be empty")
      ->required();
  init->add_option("--seed", options.seed, "Same seed, same bytes")
      ->check(CLI::NonNegativeNumber)  // CLI11 alone would wrap -1 around
      ->capture_default_str();
  init->add_option("--shard-mb", options.shard_mb,
                   "Cut the weights into indexed files of at most this many MB (10^6 bytes)")
      ->check(CLI::Range(1u, 1u << 20));
  const unsigned cores = std::clamp(std::thread::hardware_concurrency(), 1u, kThreadsMax);
  options.threads = static_cast<int>(cores);
  init->add_option("--threads", options.threads, "Threads that draw")
      ->check(CLI::Range(1u, kThreadsMax))
      ->capture_default_str();
  init->footer(
      "Examples:\n"
      "  expertmesh model init --preset tiny-v3 --seed 1 --out build/models/tiny-v3\n"
      "  expertmesh model init --preset bench-1b --out /data/bench-1b --shard-mb 500");
  init->callback([&] { command = [&](const Output& o) { return InitModel(options, o); }; });
}

void AddConvert(CLI::App& model, ConvertOptions& options, Command& command) {
  CLI::App* convert =
      model.add_subcommand("convert", "Write a model directory in another stored form");
  convert->add_option("--from", options.from, "Model directory to read")->required();
  convert->add_option("--out", options.to, "Directory to make; must not exist")->required();
  convert
      ->add_option("--to", options.format,
                   "Form: " + absl::StrJoin(model::TargetFormatNames(), ", ") +
                       " (fp4 for routed experts, the rest of them fp8-128)")
      ->required();
  convert->add_option("--group-size", options.group_size, "Inputs per scale of int8 and int4")
      ->check(CLI::IsMember({32, 128}))
      ->capture_default_str();
  convert
      ->add_option("--shard-mb", options.shard_mb,
                   "Cut the weights into indexed files of at most this many MB (10^6 bytes)")
      ->check(CLI::Range(1u, 1u << 20));
  const unsigned cores = std::clamp(std::thread::hardware_concurrency(), 1u, kThreadsMax);
  options.threads = static_cast<int>(cores);
  convert->add_option("--threads", options.threads, "Threads that convert")
      ->check(CLI::Range(1u, kThreadsMax))
      ->capture_default_str();
  convert->footer(
      "Quantised are attention, dense, shared and routed expert matrices; embedding, head, norms\n"
      "and gates stay as they are. Prints the error by part.\n"
      "Examples:\n"
      "  expertmesh model convert --from build/models/tiny-v3 --to int8 --out /data/tiny-int8\n"
      "  expertmesh model convert --from /data/v3 --to fp8-128 --out /data/v3-fp8 --shard-mb 4000\n"
      "  expertmesh model convert --from /data/v3-fp8 --to f32 --out /data/v3-f32");
  convert->callback([&] { command = [&](const Output& o) { return ConvertModel(options, o); }; });
}

void AddExport(CLI::App& model, ExportOptions& options, Command& command) {
  CLI::App* exporter =
      model.add_subcommand("export", "Write a model directory as one file for other engines");
  exporter->add_option("dir", options.directory, "Model directory to read")->required();
  exporter->add_option("file", options.file, "File to make; must not exist")->required();
  exporter
      ->add_flag("--gguf", options.gguf,
                 "GGUF of the architecture deepseek2 (the only form there is)")
      ->required();
  exporter->add_option("--type", options.type, "Weights but norms and gates: f32, bf16 or q8_0")
      ->capture_default_str();
  exporter
      ->add_option("--kv-b", options.kv_b,
                   "split: attn_k_b and attn_v_b, for absorbed attention; joined: attn_kv_b, as "
                   "older files have it")
      ->capture_default_str();
  const unsigned cores = std::clamp(std::thread::hardware_concurrency(), 1u, kThreadsMax);
  options.threads = static_cast<int>(cores);
  exporter->add_option("--threads", options.threads, "Threads that encode")
      ->check(CLI::Range(1u, kThreadsMax))
      ->capture_default_str();
  exporter->footer(
      "Models with residual streams (mHC), sparse attention (DSA) or a memory (Engram) have no\n"
      "place in that architecture and are refused.\n"
      "Examples:\n"
      "  expertmesh model export --gguf build/models/bench-1b /data/bench-1b-bf16.gguf\n"
      "  expertmesh model export --gguf --type q8_0 --kv-b joined /data/v3 /data/v3-q8_0.gguf");
  exporter->callback([&] { command = [&](const Output& o) { return ExportModel(options, o); }; });
}

// A directory, or a preset that nobody has written.
void AddModel(CLI::App& command, std::string& directory, std::string& preset) {
  CLI::Option_group* group = command.add_option_group("model");
  group->add_option("dir", directory, "Model directory");
  group->add_option("--preset", preset,
                    "A shape by name: " + absl::StrJoin(model::PresetNames(), ", "));
  group->require_option(1);
}

void AddShow(CLI::App& model, ShowOptions& options, Command& command) {
  CLI::App* show = model.add_subcommand(
      "show",
      "Check a model directory and print parameters, stored forms, bytes, KV size and revision");
  AddModel(*show, options.directory, options.preset);
  show->add_flag("--json", options.json, "One JSON object");
  lifecycle::AddOverrideFlag(*show, options.overrides);
  show->footer(
      "Examples:\n"
      "  expertmesh model show build/models/tiny-v3\n"
      "  expertmesh model show --preset 1t          a shape on paper\n"
      "  expertmesh model show --json build/models/tiny-v3 | python3 -m json.tool");
  show->callback([&] { command = [&](const Output& o) { return ShowModel(options, o); }; });
}

void AddSlices(CLI::App& model, SlicesOptions& options, Command& command) {
  CLI::App* slices =
      model.add_subcommand("slices", "Print the slice of experts of each of N pools, one a line");
  AddModel(*slices, options.directory, options.preset);
  slices->add_option("--pools", options.pools, "Number of pools")
      ->check(CLI::NonNegativeNumber)
      ->required();
  slices->add_flag("--json", options.json, "One JSON list of strings");
  slices->footer(
      "Examples:\n"
      "  expertmesh model slices build/models/tiny-v3 --pools 3     prints 0-15, 16-23, 24-31\n"
      "  expertmesh model slices --preset 1t --pools 8");
  slices->callback([&] { command = [&](const Output& o) { return PrintSlices(options, o); }; });
}

void AddEncode(CLI::App& tokenizer, EncodeOptions& options, Command& command) {
  CLI::App* encode =
      tokenizer.add_subcommand("encode", "Text to token ids, one line for each text");
  encode->add_option("text", options.texts, "Texts; without any, the lines of --input");
  encode->add_option("--model", options.model, "Directory with tokenizer.json")->required();
  encode->add_option("--input", options.input, "File of lines; - is standard input")
      ->capture_default_str();
  encode->add_flag("--json", options.json, "Lines are JSON strings, answers JSON lists");
  encode->add_flag("--special", options.special,
                   "Names of added tokens become those tokens (never do that with users' texts)");
  encode->add_flag("--timing", options.timing,
                   "Print the seconds spent encoding to standard error");
  encode->footer(
      "Examples:\n"
      "  expertmesh tokenizer encode --model build/models/tiny-v3 \"Explain MoE architecture\"\n"
      "  expertmesh tokenizer encode --model /data/v3 --input book.txt --timing > ids.txt\n"
      "  echo '\"two\\nlines\"' | expertmesh tokenizer encode --model /data/v3 --json");
  encode->callback([&] { command = [&](const Output& o) { return EncodeTexts(options, o); }; });
}

void AddDecode(CLI::App& tokenizer, DecodeOptions& options, Command& command) {
  CLI::App* decode = tokenizer.add_subcommand("decode", "Token ids to text");
  decode->add_option("id", options.ids, "Ids; without any, the lines of --input");
  decode->add_option("--model", options.model, "Directory with tokenizer.json")->required();
  decode->add_option("--input", options.input, "File of lines of ids; - is standard input")
      ->capture_default_str();
  decode->add_flag("--json", options.json, "Lines are JSON lists, answers JSON strings");
  decode->add_flag("--skip-special", options.skip_special, "Leave special tokens out");
  decode->footer(
      "Bytes that are no UTF-8 come out as U+FFFD.\n"
      "Examples:\n"
      "  expertmesh tokenizer decode --model build/models/tiny-v3 72 105\n"
      "  expertmesh tokenizer decode --model /data/v3 --input ids.txt");
  decode->callback([&] { command = [&](const Output& o) { return DecodeIds(options, o); }; });
}

void AddChat(CLI::App& tokenizer, ChatPromptOptions& options, Command& command) {
  CLI::App* chat = tokenizer.add_subcommand("chat", "Show the prompts of conversations");
  chat->add_option("--model", options.model, "Directory with tokenizer.json")->required();
  chat->add_option("--input", options.input, "File of lines of JSON; - is standard input")
      ->capture_default_str();
  chat->add_option("--chat-encoding", options.encoding, "auto, v3, r1, v3.1, v3.2 or v4")
      ->capture_default_str();
  chat->add_flag("--ids", options.ids, "Print ids, not text");
  chat->footer(
      "A line is a list of messages, or an object with messages, thinking, reasoning_effort,\n"
      "add_generation_prompt, continue_final, drop_thinking. Answers are JSON strings.\n"
      "Example:\n"
      "  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' |\n"
      "    expertmesh tokenizer chat --model build/models/tiny-v3");
  chat->callback([&] { command = [&](const Output& o) { return PrintChatPrompts(options, o); }; });
}

}  // namespace

int RunCommandLine(int argc, const char* const* argv, std::ostream& out, std::ostream& err) {
  CLI::App app("The operator's command line of ExpertMesh", "expertmesh");
  app.set_version_flag("--version", EXPERTMESH_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Example:\n  expertmesh model show build/models/tiny-v3\n"
      "More: expertmesh model --help, expertmesh tokenizer --help, expertmesh engram --help, "
      "expertmesh eval --help");
  CLI::App* model = app.add_subcommand("model", "Make and inspect model directories");
  model->require_subcommand(1);
  model->footer("Examples: expertmesh model init --help, expertmesh model show --help");
  CLI::App* tokenizer = app.add_subcommand("tokenizer", "Encode and decode as a model does");
  tokenizer->require_subcommand(1);
  tokenizer->footer("Example:\n  expertmesh tokenizer encode --model build/models/tiny-v3 Hello");
  Command command;
  EngramFlags engram;
  engram.Add(app, command);
  EvalFlags eval;
  eval.Add(app, command);
  EncodeOptions encode;
  DecodeOptions decode;
  ChatPromptOptions chat;
  InitOptions init;
  ConvertOptions convert;
  ExportOptions export_options;
  ShowOptions show;
  SlicesOptions slices;
  AddInit(*model, init, command);
  AddConvert(*model, convert, command);
  AddExport(*model, export_options, command);
  AddShow(*model, show, command);
  AddSlices(*model, slices, command);
  AddEncode(*tokenizer, encode, command);
  AddDecode(*tokenizer, decode, command);
  AddChat(*tokenizer, chat, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error, out, err);  // help, version
    return Fail(err, std::string(error.what()) + " (see expertmesh --help)");
  }
  const absl::Status status = command({out, err});
  return status.ok() ? 0 : Fail(err, std::string(status.message()));
}

}  // namespace expertmesh::cli
