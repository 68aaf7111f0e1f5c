"""Each rule must fire on a bad snippet and stay silent on a good one: a rule that cannot fail is a
defect. Snippets are (path, text); compile commands are (path, flags)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cpp
from tree import Tree, Violation

_GOOD_FLAGS = "c++ -Wall -Wextra -Werror -ffp-contract=off -c x.cc"
_LONG = "int F(int a) {\n" + "  ++a;\n" * 69 + "  return a;\n}\n"
_FITS = "int F(int a) {\n" + "  ++a;\n" * 67 + "  return a;\n}\n"
_PROTO = "proto/expertmesh/toy/v1/toy.proto"
_MARKER = "TO" "DO"


class Case(NamedTuple):
    """A rule with a tree on which it must fire and one on which it must not."""

    rule: str
    bad: dict[str, str]
    good: dict[str, str]


def _one(rule: str, path: str, bad: str, good: str) -> Case:
    return Case(rule, {path: bad}, {path: good})


CASES = [
    _one("component_fence", "router/a.cc", '#include "gateway/b.h"\n', '#include "model/b.h"\n'),
    _one("component_fence", "model/a.cc", '#include "services/rpc/b.h"\n',
         '#include "services/base/b.h"\n// #include "router/x.h"\n'),
    _one("component_fence", "model/a.h", '#include "expertmesh/common/v1/common.pb.h"\n', ""),
    _one("component_fence", "services/base/a.h", '#include "services/rpc/b.h"\n',
         '#include "services/base/b.h"\n'),
    _one("component_fence", "router/core/a.h", '#include "expertmesh/router/v1/router.pb.h"\n',
         '#include "services/base/ids.h"\n'),
    _one("component_fence", "cli/a.cc", '#include "router/service.h"\n',
         '#include "router/core/placement.h"\n'),
    _one("library_fence", "engram-store/a.cc", "#include <rocksdb/db.h>\n", "#include <vector>\n"),
    Case("library_fence", {"router/a.cc": "#include <prometheus/gauge.h>\n"},
         {"engram-store/rocksdb/a.cc": '#include "rocksdb/db.h"\n',
          "tests/services/telemetry/a.cc": "#include <prometheus/gauge.h>\n",
          "model/config_json.cc": "#include <boost/json.hpp>\n"}),
    _one("library_fence", "model/layer.cc", "#include <grpcpp/grpcpp.h>\n", ""),
    _one("library_fence", "router/a.cc", '#include "boost/asio.hpp"\n', ""),
    _one("library_fence", "model/kernels/a.cc", "#include <boost/json.hpp>\n", ""),
    _one("library_fence", "model/kernels/cpu/a.cc", "#include <cuda_runtime.h>\n", ""),
    _one("core_purity", "router/core/a.cc", "#include <mutex>\n", "#include <map>\n"),
    _one("core_purity", "gateway/core/a.cc", "auto t = std::chrono::steady_clock::now();\n",
         "// std::chrono::steady_clock::now() is not read here\n"),
    _one("core_purity", "router/core/a.h", "#include <spdlog/spdlog.h>\n", ""),
    _one("row_path", "model/blocks/a.cc", "float y = std::exp(x);\n",
         "float y = Exp(x) + std::sqrt(x);  // not std::exp(x)\n"),
    _one("row_path", "model/kernels/cpu/a.cc", "auto r = _mm512_rcp14_ps(x);\n",
         "auto r = _mm512_div_ps(one, x);\n"),
    _one("row_path", "model/kernels/cpu/a.cc", "auto r = _mm256_rsqrt_ps(x);\n", ""),
    _one("row_path", "model/sampler.cc", "double u = expf(x) + pow(2, y);\n",
         "double u = kernels::exp(x);\n"),
    _one("row_path", "model/a.cc", "#pragma STDC FP_CONTRACT ON\n", "#pragma once\n"),
    _one("file_size", "router/a.cc", "\n" * 601, "\n" * 160),
    _one("file_size", "tests/a_test.cc", "\n" * 801, "\n" * 700),
    _one("file_size", "router/a.h", "\n" * 91, "\n" * 90),
    _one("function_size", "router/a.cc", _LONG, _FITS),
    _one("function_size", "router/a.cc", "namespace a {\nclass B {\n public:\n" + _LONG + "};\n}\n",
         "namespace a {\n" + _FITS + _FITS + "}\nconstexpr int kT[] = {" + "1,\n" * 90 + "};\n"),
    _one("function_size", "cli/mesh/a.py", '"""."""\ndef f():\n' + "    x = 1\n" * 70,
         '"""."""\ndef f():\n' + "    x = 1\n" * 69),
    _one("columns", "router/a.cc", "x" * 101, "ü" * 100),
    _one("headers", "router/a.h", "#pragma once\n", "// What for.\n#pragma once\n"),
    _one("headers", "router/a.h", "// What for.\n", "// What for.\n#pragma once\n"),
    _one("banned_words", "docs/a.md", f"{_MARKER}: more\n", "todos\n"),
    _one("banned_words", "router/README.md", "see /home" "/ann/notes\n", "see docs/home/page\n"),
    _one("banned_words", "router/a.cc", "for (int x : v | std::views::reverse) {}\n",
         "std::string_view v;\n"),
    _one("honest_tests", "tests/a_test.cc", "std::this_thread::sleep_for(1s);\n", "Wait(1s);\n"),
    _one("honest_tests", "tests/a_test.cc", "TEST(A, DISABLED_B) {}\n", "TEST(A, B) {}\n"),
    _one("honest_tests", "tests/a_test.cc", "GTEST_SKIP();\n", '// says "sleep(1)"\n'),
    _one("python", "cli/mesh/a.py", '"""."""\nimport requests\n', '"""."""\nimport json\n'),
    _one("python", "cli/mesh/a.py", "def (:\n", '"""."""\n'),
    _one("python", "tests/conformance/run.py", "import openai\n", '"""."""\nimport openai\n'),
    _one("proto_packages", _PROTO, "package expertmesh.other.v1;\n",
         "package expertmesh.toy.v1;\n"),
    _one("proto_services", _PROTO, "service Toy {\n}\n", "service ToyService {\n}\n"),
    _one("proto_services", _PROTO,
         "service ToyService {\n  rpc Play(stream Ball) returns (PlayResponse);\n}\n",
         "service ToyService {\n  rpc Play(stream PlayRequest) returns (PlayResponse);\n}\n"),
    _one("proto_enums", _PROTO, "enum ToyKind {\n  TOY_KIND_NONE = 0;\n}\n",
         "enum ToyKind {\n  TOY_KIND_UNSPECIFIED = 0;\n  TOY_KIND_BALL = 1;\n}\n"),
    _one("proto_enums", _PROTO,
         "enum ToyKind {\n  TOY_KIND_UNSPECIFIED = 0;\n  BALL = 1;\n}\n", ""),
    _one("proto_comments", _PROTO, "\nmessage Toy {}\n", "\n// A toy.\nmessage Toy {}\n"),
    _one("proto_comments", _PROTO, "// A toy.\nmessage Toy {\n  string name = 1;\n}\n",
         "// A toy.\nmessage Toy {\n  // Its name.\n  string name = 1;\n}\n"),
    _one("links", "docs/a.md", "[b](b.md)\n",
         "[a](a.md) [web](https://example.org/b.md) [in](#x)\n"),
    _one("readmes", "router/a.cc", "", ""),
    _one("metrics", "docs/metrics.md", "## x\n| `a` | g |\n| `a` | g |\n", "## x\n| `a` | g |\n"),
    Case("package_list", {"docs/a.md": "install libpcre2-dev\n", "cli/mesh/packages.py": ""},
         {"cli/mesh/packages.py": '"libpcre2-dev"\n', "docs/a.md": "a C++ dev package\n"}),
]


def _tree(files: dict[str, str]) -> Tree:
    return Tree(Path("/nowhere"), files)


def run(rules: dict[str, Callable[[Tree], list[Violation]]]) -> list[Violation]:
    """What the rules get wrong."""
    found = []
    for case in CASES:
        if not rules[case.rule](_tree(case.bad)):
            found.append(Violation("self_test", 0, f"{case.rule} is silent on {case.bad}"))
        good = dict(case.good)
        if case.rule == "readmes":
            good["router/README.md"] = "what for\n"
        for wrong in rules[case.rule](_tree(good)):
            found.append(Violation("self_test", 0, f"{case.rule} fires on good code: {wrong}"))
    found += _flags(rules["compile_flags"]) + _files(rules) + _lexer()
    untested = set(rules) - {case.rule for case in CASES}
    untested -= {"compile_flags", "licences", "runnable"}  # below
    found += [Violation("self_test", 0, f"{name} has no bad snippet") for name in sorted(untested)]
    return found


def _flags(rule: Callable[[Tree], list[Violation]]) -> list[Violation]:
    bad = ["c++ -Wall -Wextra -Werror -c x.cc"]
    bad += [f"{_GOOD_FLAGS} {flag}" for flag in ("-ffast-math", "-Ofast", "-march=native",
                                                 "-funsafe-math-optimizations")]
    found = []
    for command in [*bad, _GOOD_FLAGS]:
        tree = _tree({})
        tree.compile_commands.append({"file": "model/x.cc", "command": command})
        if bool(rule(tree)) == (command == _GOOD_FLAGS):
            found.append(Violation("self_test", 0, f"compile_flags is wrong about {command}"))
    if not rule(_tree({})):
        found.append(Violation("self_test", 0, "compile_flags accepts an empty build"))
    return found


def _files(rules: dict[str, Callable[[Tree], list[Violation]]]) -> list[Violation]:
    found = []
    tree = _tree({})
    tree.third_party = ["third_party/lib/a.proto"]
    if not rules["licences"](tree) or not rules["runnable"](tree):
        found.append(Violation("self_test", 0, "licences or runnable is silent"))
    tree.third_party.append("third_party/lib/LICENSE")
    tree.executables |= {"mesh", ".ci/run"}
    if rules["licences"](tree) or rules["runnable"](tree):
        found.append(Violation("self_test", 0, "licences or runnable fires on a good tree"))
    return found


def _lexer() -> list[Violation]:
    """The C++ reader on the shapes that have fooled such readers."""
    text = ("template <typename T, typename U = std::vector<int>>\nclass A : public B<int> {\n"
            " public:\n  A() : a_{1}, b_{2} {\n    if (x) {\n      y();\n    }\n  }\n"
            "  int c() const override { return 1'000'000; }\n};\n"
            "const char* kText = R\"x(})x\";\nconst char kBrace = '{';\n"
            "#define M(x) \\\n  { x; }\nint (*table[])(int) = {F, G};\n"
            "auto Foo(int a)\n    -> int {\n  return a;\n}\n")
    lines = {(f.first_line, f.last_line) for f in cpp.functions(text)}
    wanted = {(4, 8), (9, 9), (16, 19)}
    missing = {span for span in wanted if not any(s[1] == span[1] for s in lines)}
    found = [Violation("self_test", 0, f"functions() misses lines {span}: {lines}")
             for span in missing]
    if not any(span == (16, 19) for span in lines):
        found.append(Violation("self_test", 0, f"functions() misplaces a body: {lines}"))
    return found
