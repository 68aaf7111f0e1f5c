// Names of DeepSeek's control and chat tokens (docs/formats.md §8.1). Ids are always resolved by
// name: they moved between releases. Bars are U+FF5C and separators U+2581, except in <|EOT|>.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace expertmesh::model::special {

inline constexpr std::string_view kBos = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEos = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kPad = "<｜▁pad▁｜>";
inline constexpr std::string_view kUser = "<｜User｜>";
inline constexpr std::string_view kAssistant = "<｜Assistant｜>";
inline constexpr std::string_view kThink = "<think>";
inline constexpr std::string_view kEndThink = "</think>";
inline constexpr std::string_view kDsml = "｜DSML｜";
inline constexpr std::string_view kLatestReminder = "<｜latest_reminder｜>";
inline constexpr std::string_view kToolCallsBegin = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kToolCallsEnd = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kToolCallBegin = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kToolCallEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kToolOutputsBegin = "<｜tool▁outputs▁begin｜>";
inline constexpr std::string_view kToolOutputsEnd = "<｜tool▁outputs▁end｜>";
inline constexpr std::string_view kToolOutputBegin = "<｜tool▁output▁begin｜>";
inline constexpr std::string_view kToolOutputEnd = "<｜tool▁output▁end｜>";
inline constexpr std::string_view kToolSep = "<｜tool▁sep｜>";
inline constexpr std::string_view kFimHole = "<｜fim▁hole｜>";
inline constexpr std::string_view kFimBegin = "<｜fim▁begin｜>";
inline constexpr std::string_view kFimEnd = "<｜fim▁end｜>";
/// What the text of an encoding may name; none begins with another.
inline constexpr std::array<std::string_view, 13> kChatTokens = {
    kThink,          kEndThink,        kDsml,          kToolCallsBegin,
    kToolCallsEnd,   kToolCallBegin,   kToolCallEnd,   kToolOutputsBegin,
    kToolOutputsEnd, kToolOutputBegin, kToolOutputEnd, kToolSep,
    kLatestReminder};
/// Followed by a number and "｜>": an id that stands for nothing and is never sampled.
inline constexpr std::string_view kPlaceholderPrefix = "<｜place▁holder▁no▁";

/// Of a preset's tokenizer: id = index (docs/model-family.md §9). The first three are control
/// tokens, the rest chat tokens, which decoding shows as text.
inline constexpr size_t kControlCount = 3;
inline constexpr std::array<std::string_view, 20> kPresetTokens = {kBos,
                                                                   kEos,
                                                                   kPad,
                                                                   kUser,
                                                                   kAssistant,
                                                                   kThink,
                                                                   kEndThink,
                                                                   kFimHole,
                                                                   kFimBegin,
                                                                   kFimEnd,
                                                                   "<|EOT|>",
                                                                   "<｜tool▁calls▁begin｜>",
                                                                   "<｜tool▁calls▁end｜>",
                                                                   "<｜tool▁call▁begin｜>",
                                                                   "<｜tool▁call▁end｜>",
                                                                   "<｜tool▁outputs▁begin｜>",
                                                                   "<｜tool▁outputs▁end｜>",
                                                                   "<｜tool▁output▁begin｜>",
                                                                   "<｜tool▁output▁end｜>",
                                                                   "<｜tool▁sep｜>"};

}  // namespace expertmesh::model::special
