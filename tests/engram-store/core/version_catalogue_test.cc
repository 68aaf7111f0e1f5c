#include "engram-store/core/version_catalogue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::engram_store {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const VersionRecord kOld{"tiny", "rev-a", "v1", 10, 1};
const VersionRecord kOther{"tiny", "rev-b", "v2", 20, 2};
const VersionRecord kNew{"tiny", "rev-a", "v3", 30, 3};

TEST(VersionCatalogueTest, EmptyHasNothing) {
  const VersionCatalogue catalogue;
  EXPECT_EQ(catalogue.Find("tiny", "rev-a", ""), nullptr);
  EXPECT_EQ(catalogue.Find("", "", ""), nullptr);
  EXPECT_THAT(catalogue.List("", ""), IsEmpty());
  EXPECT_EQ(catalogue.size(), 0u);
}

TEST(VersionCatalogueTest, FindsTheNewestOrTheNamed) {
  const VersionCatalogue catalogue({kOld, kNew, kOther});
  ASSERT_NE(catalogue.Find("tiny", "rev-a", ""), nullptr);
  EXPECT_EQ(*catalogue.Find("tiny", "rev-a", ""), kNew);
  EXPECT_EQ(*catalogue.Find("tiny", "rev-a", "v1"), kOld);
  EXPECT_EQ(*catalogue.Find("tiny", "rev-b", ""), kOther);
  EXPECT_EQ(*catalogue.Find("tiny", "", "v1"), kOld);
  EXPECT_EQ(catalogue.Find("tiny", "rev-b", "v1"), nullptr);
  EXPECT_EQ(catalogue.Find("huge", "rev-a", ""), nullptr);
  EXPECT_EQ(catalogue.Find("", "rev-a", ""), nullptr);  // a look-up names its model
}

TEST(VersionCatalogueTest, ListsNewestFirst) {
  const VersionCatalogue catalogue({kOld, kOther, kNew});
  EXPECT_THAT(catalogue.List("", ""), ElementsAre(kNew, kOther, kOld));
  EXPECT_THAT(catalogue.List("tiny", "rev-a"), ElementsAre(kNew, kOld));
  EXPECT_THAT(catalogue.List("tiny", ""), ElementsAre(kNew, kOther, kOld));
  EXPECT_THAT(catalogue.List("huge", ""), IsEmpty());
}

}  // namespace
}  // namespace expertmesh::engram_store
