// What `expertmesh eval memory-edit` found. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <span>
#include <string>
#include <vector>

#include "cli/eval/edit_plan.h"
#include "cli/eval/recall_tally.h"

namespace expertmesh::cli {

/// Answers [edited questions, then others].
struct EditAnswers {
  std::vector<std::string> before = {};
  std::vector<std::string> edited = {};
  std::vector<std::string> rolled_back = {};  // empty if the edit was kept
};

struct EditReport {
  std::string first = {};
  std::string second = {};
  std::string old_version = {};
  std::string new_version = {};
  std::vector<std::pair<uint32_t, size_t>> rows = {};  // layer, rows exchanged
  size_t collisions = 0;                               // pairs of n-grams left out
  uint64_t foreign_reads = 0;                          // of the questions about others
  uint64_t foreign_hits = 0;                           // of them in exchanged rows
  size_t skipped = 0;

  Share right_before;              // of the questions about the two
  Share exchanged;                 // of those whose answers differ between the two
  Share stayed;                    // of the questions about others: the same answer, byte for byte
  Share restored;                  // of all questions, after the roll-back
  std::vector<WrongAnswer> wrong;  // not exchanged, the right answer being the expected one

  size_t lane_tokens = 0;
  bool lane_ran_on = false;   // the old version was still leased after the publish
  bool lane_equal = false;    // to the run that named the old version, bit for bit
  bool lane_differs = false;  // a run on the new version does not
};

/// Fills in the shares.
void CountEdit(const EditPlan& plan, const EditAnswers& answers, size_t wrong_max,
               EditReport& report);
boost::json::object EditJson(const EditReport& report);
std::string EditText(const EditReport& report);

}  // namespace expertmesh::cli
