//! libring from C: `tests/c/*.c`, the header, the README's quick start and the example, compiled and run.
//!
//! Each program runs plain. Some also run under valgrind, which must find nothing: no error, no byte
//! lost. All of them do when RING_VALGRIND=all; that takes minutes.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use tempfile::TempDir;
use tests::ports::Ports;
use tests::program::{Exit, Program, ring};
use tests::skip::skip;

/// A program under `tests/c`, its arguments, and whether it always runs under valgrind too.
struct Case {
    name: &'static str,
    arguments: &'static [&'static str],
    valgrind: bool,
}

const CASES: [Case; 17] = [
    Case { name: "arguments", arguments: &[], valgrind: true },
    Case { name: "callback", arguments: &[], valgrind: true },
    Case { name: "cancel", arguments: &[], valgrind: false },
    Case { name: "close", arguments: &[], valgrind: true },
    Case { name: "cluster", arguments: &["ADDRESS", "SECOND", "THIRD"], valgrind: false },
    Case { name: "drains", arguments: &[], valgrind: false },
    Case { name: "ends", arguments: &[], valgrind: true },
    Case { name: "fork", arguments: &[], valgrind: false },
    Case { name: "kv", arguments: &["DIR"], valgrind: false },
    Case { name: "log", arguments: &["DIR", "ADDRESS"], valgrind: true },
    Case { name: "many", arguments: &["200"], valgrind: false },
    Case { name: "panic", arguments: &[], valgrind: true },
    Case { name: "requests", arguments: &[], valgrind: true },
    Case { name: "sans", arguments: &["1", "2", "3", "4", "5"], valgrind: false },
    Case { name: "sigpipe", arguments: &["ADDRESS"], valgrind: false },
    Case { name: "streams", arguments: &["ADDRESS"], valgrind: true },
    Case { name: "watch", arguments: &["ADDRESS", "SECOND"], valgrind: false },
];

#[test]
fn every_hazard_is_met_from_c() {
    let Some(place) = Place::new("every_hazard_is_met_from_c", Library::WithTestOps) else {
        return;
    };
    for case in CASES {
        let binary = place.compile(&source(case.name), "c99", case.name);
        place.run(&case, &[&*binary.to_string_lossy()]);
    }
}

#[test]
fn valgrind_finds_nothing() {
    let name = "valgrind_finds_nothing";
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip(name, "valgrind is not installed");
    }
    let Some(place) = Place::new(name, Library::WithTestOps) else {
        return;
    };
    let all = env::var_os("RING_VALGRIND").is_some_and(|value| value == "all");
    for case in CASES.iter().filter(|case| case.valgrind || all) {
        let binary = place.compile(&source(case.name), "c99", &format!("{}-valgrind", case.name));
        let kinds = "definite,indirect,possible";
        let (show, errors) =
            (format!("--show-leak-kinds={kinds}"), format!("--errors-for-leak-kinds={kinds}"));
        let words = [
            "valgrind",
            "--quiet",
            "--leak-check=full",
            &show,
            &errors,
            "--error-exitcode=9",
            "--fair-sched=try",
            &*binary.to_string_lossy(),
        ];
        place.run(case, &words);
    }
}

/// The layout of every struct, and the header itself, for both languages and with all warnings.
#[test]
fn the_header_compiles_as_c_and_as_cpp() {
    let Some(place) = Place::new("the_header_compiles_as_c_and_as_cpp", Library::Plain) else {
        return;
    };
    let layout = source("layout");
    place.compile(&layout, "c11", "layout");
    let bare =
        place.write("bare.c", "#include \"ring.h\"\nint main(void) { return (int)ring_abi(); }\n");
    place.compile(&bare, "c99", "bare");
    if Command::new("c++").arg("--version").output().is_err() {
        return skip("the_header_compiles_as_c_and_as_cpp (C++)", "no C++ compiler");
    }
    for (from, name) in [(&layout, "layout-cpp"), (&bare, "bare-cpp")] {
        place.compile_with("c++", &["-x", "c++"], from, "c++11", name);
    }
}

/// What the library exports is what `ffi/exports.txt` lists.
#[test]
fn nothing_else_is_exported() {
    let name = "nothing_else_is_exported";
    if Command::new("nm").arg("--version").output().is_err() {
        return skip(name, "nm is not installed");
    }
    let Some(place) = Place::new(name, Library::Plain) else {
        return;
    };
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only", "-g"]).arg(place.libraries.join("libring.so"));
    let exit = Program::spawn(nm).wait_exit();
    let mut exported: Vec<&str> =
        exit.ok().lines().filter_map(|line| line.split_whitespace().last()).collect();
    exported.sort_unstable();
    let listed: Vec<&str> = include_str!("../../ffi/exports.txt").lines().collect();
    assert_eq!(exported, listed);
}

/// The quick start and the example talk to a `ring dev`; the program on the header's first page needs none.
#[test]
fn what_the_documents_show_works() {
    let Some(place) = Place::new("what_the_documents_show_works", Library::Plain) else {
        return;
    };
    let (_, page) = HEADER.split_once("@code\n").expect("the header's page has a program");
    let (page, _) = page.split_once(" * @endcode").expect("the program has an end");
    let page: Vec<&str> = page.lines().map(|l| l.trim_start_matches(" *")).collect();
    let page = format!(
        "#include <stdio.h>\n#include <string.h>\n#include \"ring.h\"\n{}\nint main(void) {{ return \
         example(); }}\n",
        page.join("\n")
    );
    let page = place.compile(&place.write("page.c", &page), "c99", "page");
    assert_eq!(
        Program::spawn(place.command(&[&*page.to_string_lossy()])).wait_exit().ok(),
        "countess\n"
    );

    let ports = Ports::reserve(3);
    let mut dev = ring();
    dev.args(["dev", "--port", &ports.first().to_string(), "--shards", "8"]);
    dev.env("XDG_STATE_HOME", place.dir.path()).current_dir(place.dir.path());
    let dev = Program::spawn(dev);
    drop(dev.wait_line("ready."));
    let example = place.compile(&root().join("bindings/c/examples/kv.c"), "c99", "kv-example");
    let exit = Program::spawn(place.command(&[&*example.to_string_lossy(), &ports.address(0)]))
        .wait_exit();
    assert_eq!(exit.ok(), "apple is red\npear is green\nplum is blue\n");

    place.type_quick_start(&ports);
}

/// The example of a request with streams: two processes, texts shorter and much longer than what either may hold.
#[test]
fn a_stream_goes_through_two_processes_and_back() {
    let Some(place) = Place::new("a_stream_goes_through_two_processes_and_back", Library::Plain)
    else {
        return;
    };
    let upper = place.compile(&root().join("bindings/c/examples/upper.c"), "c99", "upper");
    let upper = upper.to_string_lossy();
    let ports = Ports::reserve(1);
    let texts = [String::new(), String::from("hello\n"), "a line of a long text\n".repeat(400_000)];
    let count = texts.len().to_string();
    let server = Program::spawn(place.command(&[&*upper, "serve", &ports.address(0), &count]));
    drop(server.wait_line("ready"));
    for text in &texts {
        let from = place.write("text", text);
        let from = fs::File::open(from).expect("just written");
        let call = place.command(&[&*upper, "call", &ports.address(0)]);
        let exit = Program::spawn_with_input(call, from.into()).wait_exit();
        assert!(exit.ok() == text.to_uppercase(), "{} bytes came back", exit.ok().len());
    }
    assert_eq!(server.wait_exit().code, Some(0), "it closed in good order");
}

/// A directory for programs, and the library that they are linked with.
struct Place {
    dir: TempDir,
    library: Library,
    libraries: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    /// As it is shipped.
    Plain,
    /// With the operations that only tests need.
    WithTestOps,
}

impl Place {
    /// None, and a counted skip: there is no C compiler.
    fn new(test: &str, library: Library) -> Option<Self> {
        if Command::new("cc").arg("--version").output().is_err() {
            skip(test, "no C compiler (cc)");
            return None;
        }
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        Some(Self { dir, libraries: build_libraries(), library })
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("the temporary directory can be written");
        path
    }

    fn compile(&self, from: &Path, standard: &str, name: &str) -> PathBuf {
        self.compile_with("cc", &[], from, standard, name)
    }

    fn compile_with(
        &self,
        compiler: &str,
        options: &[&str],
        from: &Path,
        standard: &str,
        name: &str,
    ) -> PathBuf {
        let binary = self.dir.path().join(name);
        let mut command = Command::new(compiler);
        command
            .args(options)
            .args([
                &format!("-std={standard}"),
                "-D_GNU_SOURCE",
                "-g",
                "-Wall",
                "-Wextra",
                "-pedantic",
            ])
            .args(["-Wshadow", "-Wconversion", "-Wundef", "-Werror", "-I"])
            .arg(root().join("include"))
            .arg(from)
            .args(["-x", "none", "-lpthread", "-o"])
            .arg(&binary)
            .arg(format!("-L{}", self.libraries.display()))
            .arg(format!("-l{}", self.library.name()))
            .arg(format!("-Wl,-rpath,{}", self.libraries.display()));
        let exit = Program::spawn(command).wait_exit();
        assert_eq!(exit.code, Some(0), "{exit:?}");
        binary
    }

    fn command(&self, words: &[&str]) -> Command {
        let (first, rest) = words.split_first().expect("a program");
        let mut command = Command::new(first);
        command.args(rest).current_dir(self.dir.path());
        command
    }

    fn run(&self, case: &Case, words: &[&str]) {
        let ports = Ports::reserve(3);
        let data = tempfile::tempdir().expect("the temporary directory can be written");
        let mut command = self.command(words);
        command.args(case.arguments.iter().map(|argument| match *argument {
            "DIR" => data.path().join("data").to_string_lossy().into_owned(),
            "ADDRESS" => ports.address(0),
            "SECOND" => ports.address(1),
            "THIRD" => ports.address(2),
            argument => argument.to_owned(),
        }));
        let exit: Exit = Program::spawn(command).wait_exit();
        assert_eq!(exit.code, Some(0), "{}: {exit:#?}", case.name);
    }

    /// Types what the README prints below "C quick start", with this directory in place of the
    /// checkout's and the test's port in place of the default one.
    fn type_quick_start(&self, ports: &Ports) {
        let (_, section) = README.split_once("## C quick start").expect("the README has one");
        let (program, _) = block(section, "c");
        self.write("quick.c", program);
        let (commands, _) = block(section, "sh");
        let mut typed = 0;
        for line in commands.lines().filter(|line| !line.is_empty() && !line.starts_with("cargo "))
        {
            let (words, expected) = match line.split_once(" # ") {
                Some((words, expected)) => (words, Some(expected.trim())),
                None => (line, None),
            };
            let words = words
                .replace("target/release", &self.libraries.to_string_lossy())
                .replace("-Iinclude", &format!("-I{}", root().join("include").display()))
                .replace("127.0.0.1:4701", &ports.address(0));
            let exit = Program::spawn(self.command(&["sh", "-c", &words])).wait_exit();
            let said = exit.ok();
            if let Some(expected) = expected {
                assert_eq!(said.trim_end(), expected, "{line}");
            }
            typed += 1;
        }
        assert!(typed >= 2, "the quick start compiles and runs");
    }
}

impl Library {
    /// For the linker.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "ring",
            Self::WithTestOps => "ring_test_ops",
        }
    }
}

/// Builds the libraries and gives the directory that they are in. Cargo is always asked; it has nothing to do when they
/// are fresh.
fn build_libraries() -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one = tests::lock(&BUILDING);
    let test = env::current_exe().expect("a test knows its path");
    let built = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    let profile = match built.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        // By themselves they would have other features of their dependencies, and half of the workspace be compiled again.
        .args(["build", "--quiet", "--workspace", "--exclude", "sim", "--lib"])
        .args(["--profile", profile, "--target-dir"])
        .arg(built.parent().expect("the target directory"))
        .current_dir(root());
    let status = cargo.status().expect("cargo runs these tests, so it runs");
    assert!(status.success(), "the libraries of the workspace cannot be built");
    built.to_path_buf()
}

/// The first block of a language, and what follows it.
fn block<'a>(text: &'a str, language: &str) -> (&'a str, &'a str) {
    let (_, block) =
        text.split_once(&format!("```{language}\n")).expect("a block of this language");
    block.split_once("```").expect("the block has an end")
}

fn source(name: &str) -> PathBuf {
    root().join("tests/c").join(name).with_extension("c")
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

const README: &str = include_str!("../../README.md");
const HEADER: &str = include_str!("../../include/ring.h");
