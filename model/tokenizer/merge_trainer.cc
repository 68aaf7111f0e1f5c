#include "model/tokenizer/merge_trainer.h"

#include <map>
#include <utility>

namespace expertmesh::model {
namespace {

using SymbolPair = std::pair<uint32_t, uint32_t>;

struct Word {
  std::vector<uint32_t> symbols;
  uint64_t weight;
};

struct PairStats {
  uint64_t weight = 0;
  std::vector<size_t> words;  // indices of words that hold it, or once held it
};

class Trainer {
 public:
  explicit Trainer(const std::vector<WeightedWord>& words) {
    for (int byte = 0; byte < 256; ++byte) SymbolOf(std::string(1, static_cast<char>(byte)));
    for (const WeightedWord& word : words) {
      Word symbols{{}, word.weight};
      for (const char byte : word.bytes) symbols.symbols.push_back(static_cast<uint8_t>(byte));
      words_.push_back(std::move(symbols));
      Count(words_.size() - 1);
    }
  }

  TrainedMerges Run(size_t new_symbols) {
    const size_t symbols_max = result_.symbols.size() + new_symbols;
    while (result_.symbols.size() < symbols_max && !pairs_.empty()) {
      auto best = pairs_.begin();
      for (auto it = pairs_.begin(); it != pairs_.end(); ++it) {
        if (it->second.weight > best->second.weight) best = it;
      }
      const SymbolPair pair = best->first;
      const std::vector<size_t> holders = best->second.words;
      const uint32_t merged = SymbolOf(result_.symbols[pair.first] + result_.symbols[pair.second]);
      for (const size_t index : holders) {
        Uncount(index);
        Replace(words_[index].symbols, pair, merged);
        Count(index);
      }
      result_.merges.push_back({pair.first, pair.second});
    }
    return std::move(result_);
  }

 private:
  uint32_t SymbolOf(const std::string& bytes) {
    const auto [it, is_new] = ids_.emplace(bytes, static_cast<uint32_t>(result_.symbols.size()));
    if (is_new) result_.symbols.push_back(bytes);
    return it->second;
  }

  void Count(size_t index) {
    const Word& word = words_[index];
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      PairStats& stats = pairs_[{word.symbols[i], word.symbols[i + 1]}];
      stats.weight += word.weight;
      if (stats.words.empty() || stats.words.back() != index) stats.words.push_back(index);
    }
  }

  void Uncount(size_t index) {
    const Word& word = words_[index];
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      const auto it = pairs_.find({word.symbols[i], word.symbols[i + 1]});
      it->second.weight -= word.weight;
      if (it->second.weight == 0) pairs_.erase(it);
    }
  }

  static void Replace(std::vector<uint32_t>& symbols, SymbolPair pair, uint32_t merged) {
    size_t out = 0;
    for (size_t i = 0; i < symbols.size(); ++i) {
      const bool hit =
          i + 1 < symbols.size() && symbols[i] == pair.first && symbols[i + 1] == pair.second;
      symbols[out++] = hit ? merged : symbols[i];
      if (hit) ++i;
    }
    symbols.resize(out);
  }

  TrainedMerges result_;
  std::map<std::string, uint32_t> ids_;
  std::vector<Word> words_;
  std::map<SymbolPair, PairStats>
      pairs_;  // ordered: of equal weights the lowest pair is found first
};

}  // namespace

TrainedMerges TrainMerges(const std::vector<WeightedWord>& words, size_t new_symbols) {
  return Trainer(words).Run(new_symbols);
}

}  // namespace expertmesh::model
