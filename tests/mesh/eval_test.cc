// `expertmesh eval` against a real mesh of a random model: what it measures is known here.
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "services/rpc/channel.h"
#include "tests/support/child_process.h"
#include "tests/support/local_mesh.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace expertmesh {
namespace {

namespace json = boost::json;
using test_support::LocalMesh;
using test_support::MeshSpec;
using testing::HasSubstr;

constexpr uint32_t kVocab = 512;
constexpr size_t kTextTokens = 48;

class EvalTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    MeshSpec spec;
    spec.model = test_support::TinyModel("tiny");
    spec.slices = {"0-15", "16-31"};
    spec.engram = true;
    spec.gateway = true;
    mesh_ = new LocalMesh(spec);
    ASSERT_TRUE(mesh_->WaitReady());
  }
  static void TearDownTestSuite() { delete mesh_; }

  // Runs `expertmesh eval …`; its output, which holds the error line too.
  std::string Run(std::vector<std::string> words, int code = 0) {
    std::vector<std::string> argv = {"expertmesh", "eval"};
    argv.insert(argv.end(), words.begin(), words.end());
    test_support::ChildProcess process(argv, dir_ / ("log-" + std::to_string(runs_++)));
    EXPECT_EQ(process.Wait(std::chrono::minutes(5)), code) << process.Log();
    return process.Log();
  }
  // The report of a run that ends well.
  json::object Report(std::vector<std::string> words) {
    const std::string path = dir_ / ("report-" + std::to_string(runs_));
    words.insert(words.end(), {"--json", path});
    Run(words);
    return json::parse(test_support::ReadFile(path)).as_object();
  }
  std::string File(const std::string& name, const std::vector<json::object>& lines) {
    std::string text;
    for (const json::object& line : lines) text += json::serialize(line) + "\n";
    test_support::WriteFile(dir_ / name, text);
    return dir_ / name;
  }
  static std::string Url() { return "http://" + mesh_->HttpAddress(); }
  static std::vector<uint32_t> Tokens(uint32_t seed) {
    std::vector<uint32_t> tokens;
    for (uint32_t i = 0; i < kTextTokens; ++i) tokens.push_back((seed + 13 * i * i) % kVocab);
    return tokens;
  }
  // Two texts; of the second only some tokens count.
  std::string Texts() {
    json::array first;
    json::array second;
    json::array weights;
    for (const uint32_t id : Tokens(5)) first.emplace_back(id);
    for (const uint32_t id : Tokens(77)) second.emplace_back(id);
    for (size_t i = 0; i < kTextTokens; ++i) weights.emplace_back(i < 20 ? 0.0 : i % 2 ? 1.0 : 0.5);
    return File("texts", {{{"tokens", first}}, {{"tokens", second}, {"weights", weights}}});
  }

  static LocalMesh* mesh_;
  test_support::TempDir dir_;
  int runs_ = 0;
};
LocalMesh* EvalTest::mesh_ = nullptr;

TEST_F(EvalTest, RecallCountsWhatTheModelSays) {
  std::vector<json::object> questions;
  for (int i = 0; i < 12; ++i) {
    questions.push_back({{"prompt", "What is number " + std::to_string(i) + "?"},
                         {"answer", "Nobody would say this."},
                         {"relation", i % 3 == 0 ? "a" : "b"},
                         {"held_out", i % 2 == 1}});
  }
  const std::vector<std::string> ask = {"recall", "--url", Url(), "--max-tokens", "8"};
  const auto with = [&](std::vector<std::string> words) {
    words.insert(words.begin(), ask.begin(), ask.end());
    return words;
  };
  const std::string file = File("none", questions);
  const json::object none =
      Report(with({"--questions", file, "--outside", file, "--wrong", "100"}));
  EXPECT_EQ(none.at("trained").at("hits"), 0);
  EXPECT_EQ(none.at("held_out").at("asked"), 6);
  EXPECT_EQ(none.at("outside_unknown").at("asked"), 12);
  ASSERT_EQ(none.at("wrong").as_array().size(), questions.size());
  for (size_t i = 0; i < questions.size(); ++i) {
    questions[i]["answer"] = none.at("wrong").at(i).at("said");
  }
  const json::object all = Report(with({"--questions", File("all", questions)}));
  EXPECT_EQ(all.at("trained").at("share"), 1.0);
  EXPECT_EQ(all.at("held_out").at("share"), 1.0);
  EXPECT_EQ(all.at("relations").at("a").at("trained").at("asked"), 2);
  EXPECT_EQ(all.at("model"), "tiny");
}

TEST_F(EvalTest, PerplexityIsThatOfTheTokensLogprobs) {
  const auto stub =
      inference::v1::InferenceService::NewStub(rpc::MakeChannel(mesh_->Address("attention")));
  double nll = 0;
  double weight = 0;
  for (const uint32_t seed : {5u, 77u}) {
    const std::vector<uint32_t> tokens = Tokens(seed);
    inference::v1::GenerateRequest request;
    request.add_segments()->mutable_tokens()->add_ids(tokens[0]);
    request.set_max_tokens(kTextTokens - 1);
    request.mutable_debug()->set_ignore_eos(true);
    request.mutable_debug()->mutable_forced_tokens()->Add(tokens.begin() + 1, tokens.end());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
    const auto reader = stub->Generate(&context, request);
    inference::v1::GenerateResponse event;
    for (size_t i = 1; reader->Read(&event);) {
      if (!event.has_token()) continue;
      const double w = seed == 5 ? 1.0 : i < 20 ? 0.0 : i % 2 ? 1.0 : 0.5;
      nll -= w * double{event.token().logprob()};
      weight += w;
      ++i;
    }
    ASSERT_TRUE(reader->Finish().ok());
  }
  for (const char* server : {"attention", "gateway"}) {
    const json::object report =
        Report({"perplexity", "--server", mesh_->Address(server), "--texts", Texts()});
    EXPECT_NEAR(report.at("weight").as_double(), weight, 1e-9);
    EXPECT_NEAR(report.at("mean_nll").as_double(), nll / weight, 1e-5) << server;
    EXPECT_NEAR(report.at("perplexity").as_double(), std::exp(nll / weight), 1e-2) << server;
  }
}

TEST_F(EvalTest, CompareFindsNothingBetweenEqualsAndALittleBetweenProfiles) {
  const std::string here = mesh_->Address("attention");
  const json::object same =
      Report({"compare", "--server", here, "--reference", here, "--texts", Texts()});
  EXPECT_EQ(same.at("mean_kl"), 0.0);
  EXPECT_EQ(same.at("top1_agreement"), 1.0);
  EXPECT_EQ(same.at("equal_logits"), same.at("tokens"));
  EXPECT_EQ(same.at("perplexity_ratio"), 1.0);

  MeshSpec spec;
  spec.model = test_support::TinyModel("tiny");
  spec.profile = "exact-f32";
  LocalMesh exact(spec);
  ASSERT_TRUE(exact.WaitReady());
  const json::object other = Report(
      {"compare", "--server", here, "--reference", exact.Address("attention"), "--texts", Texts()});
  EXPECT_GT(other.at("mean_kl").as_double(), 0.0);
  EXPECT_LT(other.at("mean_kl").as_double(), 0.1);  // random weights: larger than of a trained one
  EXPECT_THAT(std::string(other.at("reference_name").as_string()), HasSubstr("exact-f32"));
}

TEST_F(EvalTest, AMemoryEditComesAndGoes) {
  std::vector<json::object> questions;
  for (const char* name : {"Zyx", "Zwx", "Kij", "Wok"}) {
    for (const char* phrasing : {"What is the color of ", "Tell me the color of "}) {
      questions.push_back({{"prompt", std::string(phrasing) + name + "?"},
                           {"answer", std::string("The color of ") + name + " is " + name[1]},
                           {"entity", name},
                           {"relation", "color"}});
    }
  }
  const std::string model = test_support::TinyModel("tiny");
  std::vector<std::string> words = {"memory-edit",
                                    "--url",
                                    Url(),
                                    "--server",
                                    mesh_->Address("attention"),
                                    "--store",
                                    mesh_->Address("engram"),
                                    "--model",
                                    model,
                                    "--questions",
                                    File("facts", questions),
                                    "--first",
                                    "Zyx",
                                    "--second",
                                    "Zwx",
                                    "--max-tokens",
                                    "8",
                                    "--lane-tokens",
                                    "300"};
  const json::object report = Report(words);
  EXPECT_EQ(report.at("restored").at("share"), 1.0);
  EXPECT_EQ(report.at("restored").at("asked"), 8);
  EXPECT_EQ(report.at("stayed").at("asked"), 4);
  EXPECT_EQ(report.at("lane").at("ran_across_publish"), true);
  EXPECT_EQ(report.at("lane").at("equal_to_old_version"), true);
  EXPECT_EQ(report.at("lane").at("new_version_differs"), true);
  EXPECT_NE(report.at("old_version"), report.at("new_version"));
  EXPECT_GT(report.at("rows_by_layer").at("1").as_int64(), 0);

  words.push_back("--keep");
  const json::object there = Report(words);  // the same draft: versions are named by their content
  EXPECT_EQ(there.at("new_version"), report.at("new_version"));
  const json::object back = Report(words);  // exchanged twice is as before
  EXPECT_EQ(back.at("old_version"), report.at("new_version"));
  EXPECT_EQ(back.at("new_version"), report.at("old_version"));

  words[12] = "Kijk";
  EXPECT_THAT(Run(words, 1), HasSubstr("no question has the entity \"Kijk\""));
}

TEST_F(EvalTest, LoadAddsUpTheWorkers) {
  Run({"perplexity", "--server", mesh_->Address("attention"), "--texts", Texts()});
  const json::object report =
      Report({"load", "--expert", mesh_->Address("expert-0") + "," + mesh_->Address("expert-1")});
  EXPECT_EQ(report.at("experts"), 32);
  ASSERT_FALSE(report.at("layers").as_array().empty());
  EXPECT_GE(report.at("worst_over_mean").as_double(), 1.0);
  for (const json::value& layer : report.at("layers").as_array()) {
    int64_t rows = 0;
    for (const json::value& count : layer.at("expert_rows").as_array()) rows += count.as_int64();
    EXPECT_EQ(layer.at("rows"), rows);
    EXPECT_EQ(rows % 16, 0) << layer;  // sixteen experts a token
  }
}

TEST_F(EvalTest, ErrorsAreOneLine) {
  const std::string here = mesh_->Address("attention");
  EXPECT_THAT(Run({"recall", "--url", "here", "--questions", Texts()}, 1), HasSubstr("\"prompt\""));
  EXPECT_THAT(Run({"perplexity", "--server", here, "--texts", dir_ / "none"}, 1),
              HasSubstr("cannot read"));
  EXPECT_THAT(Run({"perplexity", "--server", mesh_->Address("expert-0"), "--texts", Texts()}, 1),
              HasSubstr("does not speak inference.v1"));
  EXPECT_THAT(Run({"perplexity", "--server", here, "--texts",
                   File("far", {{{"tokens", json::array{1, 4000000}}}})},
                  1),
              HasSubstr("text 1: "));
}

}  // namespace
}  // namespace expertmesh
