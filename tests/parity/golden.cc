#include "tests/parity/golden.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <iostream>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "model/checkpoint.h"
#include "model/checkpoint_files.h"
#include "model/config.h"
#include "services/base/status.h"

namespace expertmesh::parity {
namespace {

namespace json = boost::json;
constexpr size_t kFileBytesMax = size_t{64} << 20;

absl::Status Bad(std::string_view text) { return base::Error(base::Reason::kBadCheckpoint, text); }

absl::StatusOr<json::object> ReadObject(const std::string& path) {
  EM_ASSIGN_OR_RETURN(const std::string text,
                      model::ReadSmallFile(path, kFileBytesMax, base::Reason::kBadCheckpoint));
  boost::system::error_code error;
  json::value value = json::parse(text, error);
  if (error || !value.is_object()) return Bad(absl::StrCat(path, ": not a JSON object"));
  return value.get_object();
}

std::string Text(const json::value& value) {
  return {value.as_string().data(), value.as_string().size()};
}

bool MasksWithZero(const json::object& about) {
  const json::value* zero = about.if_contains("masked_gate_group_zero");
  return zero != nullptr && zero->as_bool();
}

absl::StatusOr<std::vector<std::string>> List(
    const std::string& directory, const std::function<bool(const json::object&)>& wanted) {
  EM_ASSIGN_OR_RETURN(const json::object index, ReadObject(directory + "/index.json"));
  std::vector<std::string> names;
  std::set<std::string> other_families;
  try {  // a missing or mistyped key
    for (const json::value& item : index.at("cases").as_array()) {
      const std::string name = Text(item);
      EM_ASSIGN_OR_RETURN(const json::object about,
                          ReadObject(absl::StrCat(directory, "/", name, "/case.json")));
      const std::string family = Text(about.at("model_type"));
      if (!model::RunsModelType(family)) {
        other_families.insert(family);
      } else if (wanted(about)) {
        names.push_back(name);
      }
    }
  } catch (const std::exception& error) {
    return Bad(absl::StrCat(directory, ": ", error.what()));
  }
  for (const std::string& family : other_families) {
    std::cerr << "parity: this version does not run the goldens of " << family << "\n";
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The tensors of golden.safetensors by name.
class Tensors {
 public:
  absl::Status Open(const std::string& path) {
    EM_ASSIGN_OR_RETURN(bytes_,
                        model::ReadSmallFile(path, kFileBytesMax, base::Reason::kBadCheckpoint));
    EM_ASSIGN_OR_RETURN(header_,
                        model::ParseSafetensorsHeader(
                            std::as_bytes(std::span(bytes_.data(), bytes_.size())), bytes_.size()));
    return absl::OkStatus();
  }

  const std::vector<model::TensorEntry>& entries() const { return header_.tensors; }

  template <class T>
  std::vector<T> Read(const model::TensorEntry& entry) const {
    std::vector<T> values((entry.end - entry.begin) / sizeof(T));
    std::memcpy(values.data(), bytes_.data() + header_.data_begin + entry.begin,
                values.size() * sizeof(T));
    return values;
  }

 private:
  std::string bytes_;
  model::SafetensorsHeader header_;
};

// "s0.hidden.3" → layer 3 of "hidden" of sequence s0.
absl::Status Take(const Tensors& tensors, const model::TensorEntry& entry, Sequence& sequence) {
  const std::vector<std::string> parts = absl::StrSplit(entry.name, '.');
  const bool whole = entry.type == model::TensorType::kI32;
  if (parts.size() == 2 && parts[1] == "tokens" && whole) {
    const std::vector<int32_t> ids = tensors.Read<int32_t>(entry);
    sequence.tokens.assign(ids.begin(), ids.end());
    return absl::OkStatus();
  }
  if (parts.size() == 2 && parts[1] == "logits" && entry.type == model::TensorType::kF32) {
    sequence.logits = tensors.Read<float>(entry);
    return absl::OkStatus();
  }
  uint32_t layer = 0;
  if (parts.size() == 3 && absl::SimpleAtoi(parts[2], &layer)) {
    if (parts[1] == "hidden" && entry.type == model::TensorType::kF32) {
      sequence.hidden[layer] = tensors.Read<float>(entry);
      return absl::OkStatus();
    }
    if (parts[1] == "experts" && whole) {
      sequence.experts[layer] = tensors.Read<int32_t>(entry);
      return absl::OkStatus();
    }
    if (parts[1] == "positions" && whole) {
      sequence.positions[layer] = tensors.Read<int32_t>(entry);
      return absl::OkStatus();
    }
  }
  return Bad(absl::StrCat("golden.safetensors: what is tensor ", entry.name, "?"));
}

absl::Status Check(const Sequence& s) {
  const size_t count = s.tokens.size();
  if (s.prompt_length == 0 || s.prompt_length > count || s.logits.empty() || s.hidden.empty() ||
      s.logits.size() % count != 0) {
    return Bad(absl::StrCat("sequence ", s.name, " is not whole"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Golden> Parse(const std::string& folder, const std::string& name) {
  EM_ASSIGN_OR_RETURN(const json::object about, ReadObject(folder + "/case.json"));
  Golden golden;
  golden.name = name;
  golden.checkpoint = folder + "/checkpoint";
  golden.model_type = Text(about.at("model_type"));
  golden.oracle = Text(about.at("oracle"));
  golden.masked_gate_group_zero = MasksWithZero(about);
  Tensors tensors;
  EM_RETURN_IF_ERROR(tensors.Open(folder + "/golden.safetensors"));
  for (const json::value& item : about.at("sequences").as_array()) {
    Sequence sequence;
    sequence.name = Text(item.at("name"));
    sequence.prompt_length = item.at("prompt_length").to_number<size_t>();
    sequence.start_position = item.at("start_position").to_number<uint64_t>();
    for (const model::TensorEntry& entry : tensors.entries()) {
      if (entry.name.rfind(sequence.name + ".", 0) != 0) continue;
      EM_RETURN_IF_ERROR(Take(tensors, entry, sequence));
    }
    EM_RETURN_IF_ERROR(Check(sequence));
    golden.sequences.push_back(std::move(sequence));
  }
  return golden;
}

}  // namespace

std::string GoldensDirectory() {
  const char* given = std::getenv("EXPERTMESH_GOLDENS");
  return given != nullptr && *given != '\0' ? given : EXPERTMESH_SOURCE_DIR "/tests/parity/goldens";
}

absl::StatusOr<std::vector<std::string>> ListGoldens(const std::string& directory) {
  return List(directory, [](const json::object&) { return true; });
}

absl::StatusOr<std::vector<std::string>> ListServedGoldens(const std::string& directory) {
  return List(directory, [](const json::object& about) { return !MasksWithZero(about); });
}

absl::StatusOr<Golden> LoadGolden(const std::string& directory, const std::string& name) {
  const std::string folder = absl::StrCat(directory, "/", name);
  try {  // a missing or mistyped key
    return Parse(folder, name);
  } catch (const std::exception& error) {
    return Bad(absl::StrCat(folder, "/case.json: ", error.what()));
  }
}

}  // namespace expertmesh::parity
