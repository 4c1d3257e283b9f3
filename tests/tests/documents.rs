//! What the documents say that the manifests also say.

use std::fs;
use std::path::Path;

#[test]
fn documents_name_the_toolchain_that_is_needed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let version = env!("CARGO_PKG_RUST_VERSION");
    assert!(!version.is_empty());
    for (document, words) in [
        ("README.md", format!("({version} or later")),
        ("docs/tutorial.md", format!("({version} or later")),
        ("docs/tutorial.ja.md", format!("（{version} 以降")),
    ] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        assert!(text.contains(&words), "{document} does not say {words:?}");
    }
}
