//! One owner of a path at a time.

use super::*;

#[test]
fn a_path_has_one_owner_at_a_time() {
    let path = Path::new("/a/store/of/this/test");
    let first = OpenStore::enter(path, Duration::ZERO).expect("free");
    assert!(OpenStore::enter(path, Duration::from_millis(20)).is_none());
    assert!(OpenStore::enter(Path::new("/another/store/of/this/test"), Duration::ZERO).is_some());
    std::thread::scope(|scope| {
        let second = scope.spawn(|| OpenStore::enter(path, Duration::from_secs(10)).is_some());
        std::thread::sleep(Duration::from_millis(20));
        drop(first);
        assert!(second.join().expect("the thread ends"));
    });
    assert!(OpenStore::enter(path, Duration::ZERO).is_some(), "the second owner is gone too");
}
