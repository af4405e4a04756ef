//! The header's first page stands in `guide.txt`, its last lines in `trailer.txt`; `tests/header.rs`
//! puts both around what cbindgen makes of the exports.
