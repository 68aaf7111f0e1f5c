#include "services/base/expert_node.h"

#include <algorithm>
#include <bit>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::base {
namespace {

absl::Status BadSlice(std::string_view text, std::string_view why) {
  return Error(Reason::kInvalidArgument,
               absl::StrCat("slice \"", std::string(text), "\": ", std::string(why),
                            "; write it like 0-15 or 0-3,8-11"));
}

void MergeInto(std::vector<ExpertRange>& ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<ExpertRange> merged;
  for (const ExpertRange& r : ranges) {
    if (!merged.empty() && r.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, r.end);
    } else {
      merged.push_back(r);
    }
  }
  ranges = std::move(merged);
}

// Recursive half of FoldRow over experts[first, last), all inside node (base, level).
void FoldNode(uint32_t row, std::span<const uint16_t> experts, std::span<const uint16_t> owners,
              uint16_t owner, uint32_t base, int level, std::vector<PartialNode>& out) {
  if (experts.empty()) return;
  const bool all =
      std::all_of(owners.begin(), owners.end(), [&](uint16_t o) { return o == owner; });
  if (all) {
    out.push_back({row, static_cast<uint16_t>(base), static_cast<uint16_t>(level)});
    return;
  }
  if (level == 0) return;
  const uint32_t middle = base + (1u << (level - 1));
  const auto split = static_cast<size_t>(std::lower_bound(experts.begin(), experts.end(), middle) -
                                         experts.begin());
  FoldNode(row, experts.first(split), owners.first(split), owner, base, level - 1, out);
  FoldNode(row, experts.subspan(split), owners.subspan(split), owner, middle, level - 1, out);
}

}  // namespace

int RootLevel(uint32_t expert_count) {
  return expert_count <= 1 ? 0 : std::bit_width(expert_count - 1);
}

uint32_t ExpertGroupSize(uint32_t expert_count) {
  return std::bit_floor(std::max(1u, expert_count / 64));
}

void FoldRow(uint32_t row, std::span<const uint16_t> experts, std::span<const uint16_t> owners,
             uint16_t owner, uint32_t expert_count, std::vector<PartialNode>& out) {
  FoldNode(row, experts, owners, owner, 0, RootLevel(expert_count), out);
}

absl::StatusOr<std::vector<ExpertRange>> ParseSlice(std::string_view text, uint32_t expert_count) {
  std::vector<ExpertRange> ranges;
  const char* p = text.data();
  const char* end = p + text.size();
  while (p != end) {
    uint32_t first = 0;
    uint32_t last = 0;
    auto parsed = std::from_chars(p, end, first);
    if (parsed.ec != std::errc()) return BadSlice(text, "a number is missing");
    p = parsed.ptr;
    last = first;
    if (p != end && *p == '-') {
      parsed = std::from_chars(p + 1, end, last);
      if (parsed.ec != std::errc()) return BadSlice(text, "a number is missing after '-'");
      p = parsed.ptr;
    }
    if (last < first) return BadSlice(text, "a range runs backwards");
    if (last >= expert_count) {
      return BadSlice(text, absl::StrCat("the model has experts 0 to ", expert_count - 1, " only"));
    }
    ranges.push_back({first, last + 1});
    if (p == end) break;
    if (*p != ',' || p + 1 == end) return BadSlice(text, "a comma should separate ranges");
    ++p;
  }
  if (ranges.empty()) return BadSlice(text, "it is empty");
  MergeInto(ranges);
  return ranges;
}

std::string SliceName(std::span<const ExpertRange> ranges) {
  std::string name;
  for (const ExpertRange& r : ranges) {
    absl::StrAppend(&name, name.empty() ? "" : ",", r.begin);
    if (r.end - r.begin > 1) absl::StrAppend(&name, "-", r.end - 1);
  }
  return name;
}

std::vector<ExpertRange> MissingFrom(std::span<const ExpertRange> hosted, uint32_t expert_count) {
  std::vector<ExpertRange> have(hosted.begin(), hosted.end());
  MergeInto(have);
  std::vector<ExpertRange> missing;
  uint32_t at = 0;
  for (const ExpertRange& r : have) {
    if (at >= expert_count) break;
    if (r.begin > at) missing.push_back({at, std::min(r.begin, expert_count)});
    at = std::max(at, r.end);
  }
  if (at < expert_count) missing.push_back({at, expert_count});
  return missing;
}

absl::StatusOr<std::vector<ExpertRange>> CutSlices(uint32_t expert_count, uint32_t pool_count) {
  if (pool_count == 0 || pool_count > expert_count) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("cannot cut ", expert_count, " experts into ", pool_count, " pools"));
  }
  std::vector<ExpertRange> nodes = {{0, 1u << RootLevel(expert_count)}};
  // A node past the last expert hosts nothing, so it is cut off and not counted as a pool.
  const auto trim = [&] {
    std::erase_if(nodes, [&](const ExpertRange& r) { return r.begin >= expert_count; });
  };
  while (nodes.size() < pool_count) {
    size_t largest = 0;
    for (size_t i = 1; i < nodes.size(); ++i) {
      if (nodes[i].end - nodes[i].begin >= nodes[largest].end - nodes[largest].begin) largest = i;
    }
    const ExpertRange node = nodes[largest];
    const uint32_t middle = node.begin + (node.end - node.begin) / 2;
    nodes[largest].end = middle;
    nodes.insert(nodes.begin() + static_cast<std::ptrdiff_t>(largest) + 1, {middle, node.end});
    trim();
  }
  for (ExpertRange& r : nodes) r.end = std::min(r.end, expert_count);
  return nodes;
}

}  // namespace expertmesh::base
