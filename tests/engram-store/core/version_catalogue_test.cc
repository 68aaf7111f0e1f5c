#include "engram-store/core/version_catalogue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::engram_store {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

VersionRecord Version(const std::string& revision, const std::string& version, uint64_t published,
                      std::vector<uint64_t> changes = {1}) {
  VersionRecord record;
  record.model = "tiny";
  record.revision = revision;
  record.version = version;
  record.publish_number = published;
  record.changes = std::move(changes);
  return record;
}

const VersionRecord kOld = Version("rev-a", "v1", 1);
const VersionRecord kOther = Version("rev-b", "v2", 2, {5});
const VersionRecord kNew = Version("rev-a", "v3", 3, {3, 1});
const VersionRecord kDraft = Version("rev-a", "v4", 0, {9, 3, 1});

std::vector<std::string> Names(const std::vector<VersionRecord>& versions) {
  std::vector<std::string> names;
  for (const VersionRecord& v : versions) names.push_back(v.version);
  return names;
}

TEST(VersionCatalogueTest, EmptyHasNothing) {
  const VersionCatalogue catalogue;
  EXPECT_EQ(catalogue.Find("tiny", "rev-a", ""), nullptr);
  EXPECT_EQ(catalogue.Find("", "", ""), nullptr);
  EXPECT_EQ(catalogue.BeforeCurrent("tiny", ""), nullptr);
  EXPECT_THAT(catalogue.List("", ""), IsEmpty());
  EXPECT_EQ(catalogue.size(), 0u);
  EXPECT_EQ(catalogue.next_change(), 1u);
  EXPECT_EQ(catalogue.next_publish_number(), 1u);
}

TEST(VersionCatalogueTest, FindsTheCurrentOrTheNamed) {
  const VersionCatalogue catalogue({kOld, kDraft, kNew, kOther});
  ASSERT_NE(catalogue.Find("tiny", "rev-a", ""), nullptr);
  EXPECT_EQ(*catalogue.Find("tiny", "rev-a", ""), kNew);
  EXPECT_EQ(*catalogue.Find("tiny", "rev-a", "v1"), kOld);
  EXPECT_EQ(*catalogue.Find("tiny", "rev-a", "v4"), kDraft);
  EXPECT_EQ(*catalogue.Find("tiny", "rev-b", ""), kOther);
  EXPECT_EQ(*catalogue.Find("tiny", "", "v1"), kOld);
  EXPECT_EQ(catalogue.Find("tiny", "rev-b", "v1"), nullptr);
  EXPECT_EQ(catalogue.Find("huge", "rev-a", ""), nullptr);
  EXPECT_EQ(catalogue.Find("", "rev-a", ""), nullptr);  // a look-up names its model
  EXPECT_EQ(VersionCatalogue({kDraft}).Find("tiny", "rev-a", ""), nullptr);
  EXPECT_EQ(*catalogue.BeforeCurrent("tiny", "rev-a"), kOld);
  EXPECT_EQ(catalogue.BeforeCurrent("tiny", "rev-b"), nullptr);
  EXPECT_EQ(catalogue.next_change(), 10u);
  EXPECT_EQ(catalogue.next_publish_number(), 4u);
  EXPECT_EQ(catalogue.published(), 3u);
}

TEST(VersionCatalogueTest, ListsNewestFirstAndDraftsLast) {
  const VersionCatalogue catalogue({kOld, kDraft, kOther, kNew});
  EXPECT_THAT(Names(catalogue.List("", "")), ElementsAre("v3", "v2", "v1", "v4"));
  EXPECT_THAT(Names(catalogue.List("tiny", "rev-a")), ElementsAre("v3", "v1", "v4"));
  EXPECT_THAT(catalogue.List("huge", ""), IsEmpty());
}

TEST(VersionCatalogueTest, PutReplacesAndRemoveForgets) {
  VersionCatalogue catalogue({kOld, kNew});
  VersionRecord again = kOld;
  again.publish_number = 4;
  catalogue.Put(again);
  EXPECT_EQ(catalogue.Find("tiny", "rev-a", "")->version, "v1");
  EXPECT_EQ(catalogue.size(), 2u);
  catalogue.Remove(again.key());
  EXPECT_EQ(catalogue.Find("tiny", "rev-a", "")->version, "v3");
}

TEST(VersionCatalogueTest, PrunableAreOldUnleasedVersionsOfEachModel) {
  VersionCatalogue catalogue({kOld, kNew, kOther, kDraft});
  for (uint64_t i = 4; i < 8; ++i) {
    catalogue.Put(Version("rev-a", "w" + std::to_string(i), i));
  }
  EXPECT_THAT(Names(catalogue.Prunable("", "", 3, false, {})), ElementsAre("w4", "v3", "v1"));
  EXPECT_THAT(Names(catalogue.Prunable("", "", 3, true, {})), ElementsAre("w4", "v3", "v1", "v4"));
  EXPECT_THAT(Names(catalogue.Prunable("tiny", "rev-b", 0, true, {})), ElementsAre("v2"));
  EXPECT_THAT(Names(catalogue.Prunable("", "", 3, true, {kOld.key(), kDraft.key()})),
              ElementsAre("w4", "v3"));
}

}  // namespace
}  // namespace expertmesh::engram_store
