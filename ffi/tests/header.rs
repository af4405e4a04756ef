//! `include/ring.h` is what the sources say, and `exports.txt` what the header declares.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};

#[test]
fn the_header_is_fresh() {
    let made = header();
    let place = root().join("include/ring.h");
    if env::var_os("RING_WRITE_HEADER").is_some() {
        fs::write(&place, &made).expect("the header can be written");
        return;
    }
    let found = fs::read_to_string(&place).expect("the header is committed");
    assert!(found == made, "include/ring.h is not what the sources say: run `make header`");
}

#[test]
fn the_list_of_exports_is_what_the_header_declares() {
    let listed = include_str!("../exports.txt").lines().map(String::from).collect();
    let header = header();
    let mut declared = BTreeSet::new();
    for declaration in header.split("\nRING_API").skip(1) {
        let name = declaration.split_once('(').and_then(|(left, _)| left.rsplit([' ', '*']).next());
        declared.insert(name.expect("a declaration has a name").to_owned());
    }
    assert_eq!(declared, listed);
}

fn header() -> String {
    let mut builder = Builder::new().with_config(config());
    for module in ["status", "types", "abi", "cq", "node", "sans"] {
        let file = format!("src/{module}.rs");
        builder = builder.with_src(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    }
    let mut text = Vec::new();
    builder.generate().expect("cbindgen understands the sources").write(&mut text);
    let text = String::from_utf8(text).expect("a header is text");
    let end = text.rfind("#ifdef __cplusplus").expect("the end of extern \"C\"");
    let (head, tail) = text.split_at(end);
    format!("{head}{}\n{tail}", include_str!("../src/trailer.txt"))
}

fn config() -> Config {
    let mut config = Config {
        language: Language::C,
        cpp_compat: true,
        header: Some(include_str!("../src/guide.txt").trim_end().into()),
        include_guard: Some("RING_H".into()),
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into(), "string.h".into()],
        after_includes: Some("\n#ifndef RING_API\n#define RING_API\n#endif".into()),
        style: Style::Type,
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::Doxy,
        line_length: 110,
        tab_width: 2,
        ..Config::default()
    };
    config.function.prefix = Some("RING_API".into());
    config
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
