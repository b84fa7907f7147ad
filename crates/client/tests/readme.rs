//! The README shows the example that is compiled.

#[test]
fn the_readme_shows_the_example_as_it_is_compiled() {
    let readme = include_str!("../../../README.md");
    let example = include_str!("../examples/log_server.rs");
    assert!(
        readme.contains(&format!("```rust,no_run\n{example}```")),
        "README.md does not show crates/client/examples/log_server.rs as it is"
    );
}
