// The header of a safetensors file (docs/formats.md §7.1), from bytes that nobody has checked.
#include <algorithm>
#include <array>
#include <boost/json/basic_parser_impl.hpp>
#include <exception>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "model/checkpoint.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

constexpr uint64_t kHeaderBytesMax = 100'000'000;
constexpr size_t kTensorsMax = size_t{1} << 20;
constexpr size_t kNameBytesMax = 1024;
constexpr size_t kRankMax = 8;
constexpr int kDepthMax = 4;

struct TypeRow {
  TensorType type;
  std::string_view name;
  size_t bytes;
};
constexpr std::array<TypeRow, 9> kTypes = {{{TensorType::kF32, "F32", 4},
                                            {TensorType::kF16, "F16", 2},
                                            {TensorType::kBf16, "BF16", 2},
                                            {TensorType::kF8E4m3, "F8_E4M3", 1},
                                            {TensorType::kF8E8m0, "F8_E8M0", 1},
                                            {TensorType::kI8, "I8", 1},
                                            {TensorType::kU8, "U8", 1},
                                            {TensorType::kI32, "I32", 4},
                                            {TensorType::kI64, "I64", 8}}};

std::string NamesOfTypes() {
  std::string names;
  for (const TypeRow& row : kTypes) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(row.name));
  }
  return names;
}

absl::Status Bad(std::string_view text) { return base::Error(base::Reason::kBadCheckpoint, text); }

// Names and values come from the file: escaped, so that a message stays one line, and cut.
std::string Quoted(std::string_view text) {
  const absl::string_view shown(text.data(), std::min<size_t>(text.size(), 120));
  return absl::StrCat("\"", absl::Utf8SafeCEscape(shown), text.size() > 120 ? "..." : "", "\"");
}

absl::Status BadTensor(std::string_view name, std::string_view text) {
  return Bad(absl::StrCat("tensor ", Quoted(name), ": ", std::string(text)));
}

// Receives the JSON as it is parsed: {name: {dtype, shape, data_offsets}, __metadata__: {text:
// text}}. Anything else stops the parser, with `status` saying why. No tree is built: headers reach
// 100 MB.
class HeaderHandler {
 public:
  static constexpr size_t max_object_size = kTensorsMax;
  static constexpr size_t max_array_size = kRankMax;
  static constexpr size_t max_key_size = kNameBytesMax;
  static constexpr size_t max_string_size = kHeaderBytesMax;

  std::vector<TensorEntry> tensors;
  absl::Status status;

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }

  bool on_object_begin(json::error_code& error) {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
      return true;
    }
    if (place_ != Place::kTop) return Stop(error, "an object stands where none is allowed");
    if (name_ == "__metadata__") {
      place_ = Place::kMetadata;
      return true;
    }
    tensors.push_back({});
    tensors.back().name = name_;
    seen_ = {};
    place_ = Place::kTensor;
    return true;
  }
  bool on_object_end(size_t, json::error_code& error) {
    if (place_ == Place::kTensor) {
      for (size_t i = 0; i < kKeys.size(); ++i) {
        if (!seen_[i]) return Stop(error, absl::StrCat(std::string(kKeys[i]), " is missing"));
      }
    }
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }
  bool on_array_begin(json::error_code& error) {
    if (place_ != Place::kTensor || key_ == kDtype) return WrongValue(error, "a list");
    numbers_.clear();
    place_ = Place::kList;
    return true;
  }
  bool on_array_end(size_t, json::error_code& error) {
    place_ = Place::kTensor;
    if (key_ == kShape) {
      tensors.back().shape = numbers_;
      return true;
    }
    if (numbers_.size() != 2) return Stop(error, "data_offsets must hold two numbers");
    tensors.back().begin = numbers_[0];
    tensors.back().end = numbers_[1];
    return true;
  }
  bool on_key_part(json::string_view part, size_t, json::error_code&) {
    text_.append(part.data(), part.size());
    return true;
  }
  bool on_key(json::string_view part, size_t, json::error_code& error) {
    const std::string key = TakeText(part);
    if (place_ == Place::kTop) {
      name_ = key;
      return true;
    }
    if (place_ != Place::kTensor) return true;
    key_ = static_cast<size_t>(std::find(kKeys.begin(), kKeys.end(), key) - kKeys.begin());
    if (key_ == kKeys.size()) return Stop(error, absl::StrCat("unknown key ", Quoted(key)));
    if (seen_[key_]) return Stop(error, absl::StrCat(key, " stands there twice"));
    return seen_[key_] = true;
  }
  bool on_string_part(json::string_view part, size_t, json::error_code&) {
    if (place_ != Place::kMetadata) text_.append(part.data(), part.size());
    return true;
  }
  bool on_string(json::string_view part, size_t, json::error_code& error) {
    if (place_ == Place::kMetadata) return true;
    const std::string text = TakeText(part);
    if (place_ != Place::kTensor || key_ != kDtype) return WrongValue(error, Quoted(text));
    for (const TypeRow& row : kTypes) {
      if (row.name == text) {
        tensors.back().type = row.type;
        return true;
      }
    }
    return Stop(error, absl::StrCat("dtype ", Quoted(text), " is not supported; known are ",
                                    NamesOfTypes()));
  }
  bool on_int64(int64_t value, json::string_view text, json::error_code& error) {
    if (value < 0) return WrongValue(error, std::string_view(text.data(), text.size()));
    return on_uint64(static_cast<uint64_t>(value), text, error);
  }
  bool on_uint64(uint64_t value, json::string_view text, json::error_code& error) {
    if (place_ != Place::kList) return WrongValue(error, {text.data(), text.size()});
    numbers_.push_back(value);
    return true;
  }
  bool on_number_part(json::string_view, json::error_code&) { return true; }
  bool on_double(double, json::string_view text, json::error_code& error) {
    return WrongValue(error, {text.data(), text.size()});
  }
  bool on_bool(bool value, json::error_code& error) {
    return WrongValue(error, value ? "true" : "false");
  }
  bool on_null(json::error_code& error) { return WrongValue(error, "null"); }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kList, kEnd };
  static constexpr std::array<std::string_view, 3> kKeys = {"dtype", "shape", "data_offsets"};
  static constexpr size_t kDtype = 0, kShape = 1;

  std::string TakeText(json::string_view last) {
    text_.append(last.data(), last.size());
    return std::exchange(text_, {});
  }
  bool Stop(json::error_code& error, std::string_view text) {
    status = place_ == Place::kStart ? Bad(absl::StrCat("header: ", std::string(text)))
                                     : BadTensor(name_, text);
    error = json::error::syntax;
    return false;
  }
  bool WrongValue(json::error_code& error, std::string_view value) {
    if (place_ == Place::kTensor || place_ == Place::kList) {
      return Stop(error, absl::StrCat(std::string(kKeys[key_]), " cannot be ", std::string(value)));
    }
    return Stop(error, absl::StrCat("cannot be ", std::string(value)));
  }

  Place place_ = Place::kStart;
  std::string name_, text_;
  size_t key_ = 0;  // index in kKeys, while in a tensor
  std::array<bool, 3> seen_{};
  std::vector<uint64_t> numbers_;
};

// Product of the shape times the element size; nothing on overflow.
std::optional<uint64_t> BytesOf(const TensorEntry& entry) {
  uint64_t bytes = TensorTypeBytes(entry.type);
  for (const uint64_t extent : entry.shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  }
  return bytes;
}

absl::Status CheckEntry(const TensorEntry& entry, uint64_t data_bytes) {
  if (entry.begin > entry.end) return BadTensor(entry.name, "data_offsets end before they begin");
  if (entry.end > data_bytes) {
    return BadTensor(entry.name,
                     absl::StrCat("data_offsets end at ", entry.end, " but the file has ",
                                  data_bytes, " bytes of data: it is truncated"));
  }
  const std::optional<uint64_t> bytes = BytesOf(entry);
  if (!bytes || *bytes != entry.end - entry.begin) {
    return BadTensor(entry.name, absl::StrCat("data_offsets span ", entry.end - entry.begin,
                                              " bytes, shape and dtype need ",
                                              bytes ? absl::StrCat(*bytes) : "more than 2^64"));
  }
  return absl::OkStatus();
}

absl::Status CheckEntries(const std::vector<TensorEntry>& tensors, uint64_t data_bytes) {
  std::vector<const TensorEntry*> order;
  for (const TensorEntry& entry : tensors) {
    EM_RETURN_IF_ERROR(CheckEntry(entry, data_bytes));
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->name < b->name; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->name == order[i]->name) {
      return BadTensor(order[i]->name, "the name stands there twice");
    }
  }
  std::erase_if(order, [](const TensorEntry* entry) { return entry->begin == entry->end; });
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->begin < b->begin; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->begin < order[i - 1]->end) {
      return BadTensor(order[i]->name,
                       absl::StrCat("overlaps tensor ", Quoted(order[i - 1]->name)));
    }
  }
  return absl::OkStatus();
}

absl::Status ParseText(std::string_view text, HeaderHandler& handler) {
  json::parse_options options;
  options.max_depth = kDepthMax;
  json::basic_parser<HeaderHandler> parser(options);
  json::error_code error;
  size_t read = 0;
  try {  // out of memory inside the parser is an exception
    read = parser.write_some(false, text.data(), text.size(), error);
  } catch (const std::exception& failure) {
    return Bad(absl::StrCat("header: ", failure.what()));
  }
  handler = std::move(parser.handler());
  EM_RETURN_IF_ERROR(handler.status);
  if (!error && read < text.size()) error = json::error::extra_data;
  if (error) return Bad(absl::StrCat("header: not valid near byte ", read, ": ", error.message()));
  return absl::OkStatus();
}

}  // namespace

size_t TensorTypeBytes(TensorType type) { return kTypes[static_cast<size_t>(type)].bytes; }
std::string_view TensorTypeName(TensorType type) { return kTypes[static_cast<size_t>(type)].name; }

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::span<const std::byte> prefix,
                                                         uint64_t file_bytes) {
  if (prefix.size() < 8 || file_bytes < 8) return Bad("header: the file is shorter than 8 bytes");
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(prefix[i]);
  if (length > kHeaderBytesMax) {
    return Bad(absl::StrCat("header: ", length, " bytes long, at most ", kHeaderBytesMax,
                            " are allowed: not a safetensors file?"));
  }
  if (length > file_bytes - 8 || length > prefix.size() - 8) {
    return Bad(absl::StrCat("header: ", length, " bytes long but the file has ", file_bytes,
                            ": it is truncated"));
  }
  const std::string_view text(reinterpret_cast<const char*>(prefix.data()) + 8, length);
  if (text.empty() || text.front() != '{') return Bad("header: does not begin with {");
  HeaderHandler handler;
  EM_RETURN_IF_ERROR(ParseText(text, handler));
  SafetensorsHeader header{std::move(handler.tensors), 8 + length};
  EM_RETURN_IF_ERROR(CheckEntries(header.tensors, file_bytes - header.data_begin));
  return header;
}

}  // namespace expertmesh::model
