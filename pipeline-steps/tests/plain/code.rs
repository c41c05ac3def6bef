//! `codebase_query`: what is found before anything runs.

use crate::plain::support::World;

#[test]
fn a_query_asks_one_thing_with_what_it_needs() {
    let world = World::new();
    let findings =
        |query: &str| world.findings(&format!("- {{name: c, type: codebase_query, queries: {query}}}"));
    for right in [
        "{q: {find_files: {type: main}}}",
        "{q: {find_files: [{type: main}, {pattern: '*.rs'}]}}",
        "{q: {get_git_status: }, p: {get_project_type: {}}}",
        "{q: {find_related: [{file: a.rs}]}}",
        "{q: {find_dependents: {file: '{{ workflow.name }}'}}}",
    ] {
        assert_eq!(findings(right), [""; 0], "{right}");
    }
    for (wrong, told) in [
        ("{}", "`queries` is empty"),
        ("{q: {}}", "the query `q` asks nothing"),
        ("{q: {find_files: {}, find_classes: {}}}", "the query `q` asks several things"),
        ("{q: {analyze_impact: {max_depth: 2}}}", "`analyze_impact` needs `file`"),
        ("{q: {find_references: }}", "`find_references` needs `name`"),
        ("{q: {find_function: {}}}", "find_function"),
        ("{q: {find_functions: {nmae: x}}}", "nmae"),
        ("{q: {find_functions: {in_file: 3}}}", "in_file"),
        ("{q: {find_files: [{type: tests}]}}", "tests"),
    ] {
        let all = findings(wrong);
        assert!(all.iter().any(|f| f.contains(told)), "{wrong}: {all:?}");
    }
}
