//! What is no module is refused, and nothing is written.

use super::*;

#[test]
fn what_is_no_module_is_not_written() {
    let folder = std::env::temp_dir().join(format!("sandbar-component-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let (linked, destination) = (folder.join("linked.wasm"), folder.join("out.wasm"));

    // An empty core module becomes an empty component, which offers no processor.
    fs::write(&linked, b"\0asm\x01\0\0\0").expect("a file");
    let error = format!("{:#}", make(&linked, &destination).expect_err("no processor"));
    assert!(error.contains("is no processor module; nothing was written"), "{error}");
    fs::write(&linked, b"garbage").expect("a file");
    let error = format!("{:#}", make(&linked, &destination).expect_err("no wasm"));
    assert!(error.contains("cannot make a component of"), "{error}");
    assert!(!destination.exists());
    fs::remove_dir_all(&folder).expect("removed");
}
