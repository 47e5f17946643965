//! The reference in docs/configuration.md has every key that is read.
#![forbid(unsafe_code)]

const SOURCES: [&str; 4] = [
    include_str!("../src/read/mod.rs"),
    include_str!("../src/read/dataplane.rs"),
    include_str!("../src/read/sa.rs"),
    include_str!("../src/read/connection.rs"),
];
const REFERENCE: &str = include_str!("../../../docs/configuration.md");

/// The keys that a source file asks a section for.
fn keys(source: &str) -> impl Iterator<Item = &str> {
    let calls = [".or(", ".optional(", ".required(", ".section("];
    calls.into_iter().flat_map(move |call| {
        source.split(call).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
    })
}

#[test]
fn every_key_stands_in_the_reference() {
    let found: Vec<&str> = SOURCES.into_iter().flat_map(keys).collect();
    assert!(found.len() > 80, "only {} keys found in the sources", found.len());
    let stands = |key: &str| {
        [format!("`{key}`"), format!("\n{key} = "), format!(".{key}]"), format!("[{key}]")]
            .iter()
            .any(|written| REFERENCE.contains(written))
    };
    let missing: Vec<&str> = found.into_iter().filter(|key| !stands(key)).collect();
    assert!(missing.is_empty(), "docs/configuration.md says nothing of {missing:?}");
}
