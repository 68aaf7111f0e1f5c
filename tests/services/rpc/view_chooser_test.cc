#include "services/rpc/view_chooser.h"

#include <gtest/gtest.h>

namespace expertmesh::rpc {
namespace {

// term 0: a view without a placement.
router::v1::View View(uint64_t sequence, uint64_t term, uint64_t number) {
  router::v1::View view;
  view.set_sequence(sequence);
  if (term == 0) return view;
  view.mutable_placement()->mutable_epoch()->set_term(term);
  view.mutable_placement()->mutable_epoch()->set_number(number);
  return view;
}

TEST(ViewChooser, OneRouterIsFollowedAlsoBackwards) {
  ViewChooser chooser(1);
  EXPECT_TRUE(chooser.Received(0, View(1, 2, 5)));
  EXPECT_TRUE(chooser.Received(0, View(2, 0, 0)));
  EXPECT_EQ(chooser.view().sequence(), 2u);
  EXPECT_EQ(chooser.newest_epoch().term(), 2u);
  EXPECT_EQ(chooser.newest_epoch().number(), 5u);
}

TEST(ViewChooser, TheNewestEpochWinsAndTheLastAmongEquals) {
  ViewChooser chooser(3);
  EXPECT_TRUE(chooser.Received(0, View(1, 0, 0)));
  EXPECT_TRUE(chooser.Received(1, View(2, 1, 9)));
  EXPECT_FALSE(chooser.Received(0, View(3, 0, 0)));
  EXPECT_FALSE(chooser.Received(2, View(4, 1, 8)));
  EXPECT_TRUE(chooser.Received(2, View(5, 1, 9)));
  EXPECT_TRUE(chooser.Received(1, View(6, 1, 9)));
  EXPECT_TRUE(chooser.Received(0, View(7, 2, 0)));
  EXPECT_EQ(chooser.view().sequence(), 7u);
  EXPECT_FALSE(chooser.Received(1, View(8, 1, 10)));
}

TEST(ViewChooser, ALostRouterHandsOverToTheBestThatIsLeft) {
  ViewChooser chooser(3);
  EXPECT_TRUE(chooser.Received(0, View(1, 1, 1)));
  EXPECT_TRUE(chooser.Received(1, View(2, 1, 2)));
  EXPECT_TRUE(chooser.Received(2, View(3, 3, 0)));
  EXPECT_FALSE(chooser.Lost(0));
  EXPECT_TRUE(chooser.Lost(2));
  EXPECT_EQ(chooser.view().sequence(), 2u);
  EXPECT_FALSE(chooser.Lost(1));
  EXPECT_FALSE(chooser.Lost(1));
  // Nobody is left: the next to speak is followed, and the newest epoch is not forgotten.
  EXPECT_TRUE(chooser.Received(0, View(4, 1, 1)));
  EXPECT_EQ(chooser.newest_epoch().term(), 3u);
}

}  // namespace
}  // namespace expertmesh::rpc
