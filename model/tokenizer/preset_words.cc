#include "model/tokenizer/preset_words.h"

#include <cctype>
#include <string>
#include <string_view>

#include "absl/strings/str_split.h"

namespace expertmesh::model {
namespace {

constexpr std::string_view kEnglish =
    "the of and to in a is that for it as was with be by on not he his but at are this have from "
    "or had an they which one you were all her she there would their we him been has when who "
    "will no more if out so up said what its about than into them can only other time new some "
    "could these two may first then do any like my now over such our man me even most made after "
    "also did many off before must well back through years much where your way down should "
    "because long each just those people too mr how little state good very make world still see "
    "own work men day get here between both being under three never know same last another while "
    "us might great year go come since against right came take used himself few house use place "
    "during high without again home around small however found part school every think thing "
    "things give going help need word words answer question explain write tell list example "
    "examples following follow name number numbers system user assistant model models expert "
    "experts network token tokens layer layers language computer science data information "
    "learning machine training neural attention memory mixture because therefore although perhaps "
    "something nothing everything anything someone always often sometimes usually already almost "
    "enough today tomorrow yesterday morning night water fire earth light story children child "
    "mother father woman women family friend friends city country war public power money business "
    "company market group problem problems point fact case government history life death mind "
    "body heart hand hands head eyes face voice room door table book letter paper line lines side "
    "end start beginning middle north south east west white black red green blue large big long "
    "short old young early late next last second third four five six seven eight nine ten hundred "
    "thousand million percent different important possible available general local national "
    "social political human natural real true false best better less least simple single several "
    "full free open close clear hard easy fast slow strong sure able ready common special "
    "particular certain whole main major certain kind form forms order result results reason "
    "change changes level area air food field study research theory method process development "
    "effect value values cost price rate amount total average per type types set sets key keys "
    "map image text message messages file files folder path page pages service services server "
    "servers client request response error errors status code program software hardware version "
    "test tests build run running read reading written writing speak speaking asked ask say says "
    "saying told went gone got took taken given gave left turn turned move moved keep kept let "
    "put seem seemed show shown bring brought begin began try tried call called feel felt become "
    "became leave hold held play live lived believe happen include includes including continue "
    "learn understand consider create created add added allow allows provide provides require "
    "required return returns contain describe compare define remember move stop wait send receive "
    "check choose select remove delete update replace copy load store save print input output "
    "result please thank thanks hello world yes okay sorry what why who whose whom where which "
    "within across along among upon toward together apart away ahead behind below above inside "
    "outside near far above once twice yet either neither else instead rather quite really "
    "actually probably certainly exactly especially simply finally quickly recently currently "
    "generally directly";

constexpr std::string_view kEndings =
    "ing tion ed er ers ly ment ness able ible ally ful less ous ive est ity ies ation ations "
    "ence ance ent ant ism ist ize ized izing ise ward wise ship hood con com pro pre dis mis non "
    "anti inter trans sub super over under ology ical graph meter port struct spect form ject "
    "duct press";

constexpr std::string_view kProgramming =
    "int return if else for while void const char string std include class public private static "
    "struct namespace template typename auto bool true false null nullptr new delete this def "
    "self import from None True False lambda with try except finally raise yield async await "
    "function var let const export default extends interface type number switch case break "
    "continue print printf println main args argv argc len range list dict set tuple map vector "
    "size length index count value key name data node next prev left right parent child root tree "
    "graph queue stack array buffer byte bytes uint32 uint64 int64 float double long short "
    "unsigned size_t override virtual final using operator throw catch assert test expect error "
    "result status config options json html http https www com org url api get set put post head "
    "body select where insert update table create join order group values into foo bar baz tmp "
    "temp init start stop open close read write file path line lines text input output stdin "
    "stdout stderr fn impl pub mut match enum trait mod crate use usize i32 u8 str Vec Option "
    "Some Ok Err";

constexpr std::string_view kSymbols =
    "() (); {} [] == != <= >= && || -> => :: ++ -- += -= *= /= << >> // /* */ /** ### ## ``` --- "
    "*** ... .. .\n ,\n ;\n {\n }\n }\n\n );\n ):\n :\n\n .\n\n \n\n \n\n\n '' \"\" \", \": \"> "
    "</ /> <! (\" \") (' ') $$ %d %s 's 't 're 've 'll 'm 'd _t _id __ ___";

constexpr std::string_view kOtherScripts =
    "的 一 是 不 了 在 人 有 我 他 这 个 们 中 来 上 大 为 和 国 地 到 以 说 时 要 就 出 会 可 也 "
    "你 对 生 能 而 子 那 得 于 着 下 自 之 年 过 发 后 作 里 用 道 行 所 然 家 种 事 成 方 多 经 "
    "么 去 法 学 如 都 同 现 当 没 动 面 起 看 定 天 分 还 进 好 小 部 其 些 主 样 理 心 她 本 前 "
    "开 但 因 我们 他们 你们 什么 没有 可以 自己 一个 这个 知道 模型 专家 网络 问题 时间 工作 "
    "中国 ， 。 ！ ？ 、 ： ； “ ” （ ） 《 》 の に は を が と で て た し です ます した する "
    "こと これ それ и в не на что я с он как это по но они мы все за был его так ты от же мне "
    "было из для de la le les et des que pour dans est une qui sur avec pas plus él está más "
    "también año niño für über und der die das ist nicht ein eine mit können größe é è à ç ñ ö ü "
    "ä ß — – … ’ ‘ • → © ° € £ 😀 👍 🎉 ❤";

void AddWords(std::string_view list, bool with_forms, std::vector<WeightedWord>& words) {
  uint64_t rank = 0;
  for (const absl::string_view view :
       absl::StrSplit(absl::string_view(list.data(), list.size()), ' ', absl::SkipEmpty())) {
    const std::string word(view);
    const uint64_t weight = 200000 / (rank + 20);
    ++rank;
    words.push_back({word, with_forms ? 1 + weight / 4 : weight});
    if (!with_forms) continue;
    words.push_back({" " + word, weight});
    std::string capital = word;
    capital[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(capital[0])));
    if (capital == word) continue;
    words.push_back({capital, 1 + weight / 8});
    words.push_back({" " + capital, 1 + weight / 8});
  }
}

}  // namespace

std::vector<WeightedWord> PresetWords() {
  std::vector<WeightedWord> words;
  AddWords(kEnglish, true, words);
  AddWords(kEndings, false, words);
  AddWords(kProgramming, true, words);
  AddWords(kSymbols, false, words);
  AddWords(kOtherScripts, false, words);
  for (const size_t indent : {2, 4, 8, 16, 32}) {
    words.push_back({std::string(indent, ' '), 4000 / indent});
    words.push_back({"\n" + std::string(indent, ' '), 1000 / indent});
  }
  words.push_back({"\t\t\t\t", 200});
  words.push_back({"\r\n", 500});
  return words;
}

}  // namespace expertmesh::model
