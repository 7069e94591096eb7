//! The rules for departing owners, broken links and claims.

use super::*;

#[test]
fn departing_owner_leaves_nothing() {
    let mut scene = Scene::sharded(4, SETTINGS);
    scene.held(A, "k");
    scene.held(A, "l");
    scene.held(B, "m");
    scene.blocked(B, "k", 9_000);
    scene.blocked(A, "k", 9_000);
    scene.blocked(A, "m", 9_000);
    assert_eq!(scene.enqueue(A, "n", 0), scene.wait(A, "n", 0));
    scene.locks.release_owner(scene.time(), A, &mut scene.effects);
    assert_eq!(scene.answered(), [(2, true)]);
    let totals = scene.totals();
    assert_eq!((totals.keys, totals.idle, totals.holders, totals.waiters), (4, 2, 2, 0));
    scene.locks.release_owner(scene.time(), A, &mut scene.effects);
    assert_eq!(scene.totals(), totals);
}

#[test]
fn departing_connection_releases_all_owners() {
    let mut scene = Scene::new(SETTINGS);
    let other = Owner { local: 1, ..A };
    scene.held(A, "k");
    scene.blocked(other, "k", 9_000);
    scene.held(other, "l");
    scene.blocked(B, "k", 9_000);
    scene.locks.release_connection(scene.time(), A.connection, &mut scene.effects);
    assert_eq!(scene.answered(), [(2, true)], "other owners of the connection are removed first");
    assert_eq!(scene.totals().owners, 1);
}

#[test]
fn broken_link_keeps_its_holds() {
    let mut scene = Scene::new(SETTINGS);
    let token = scene.held(A, "k");
    scene.blocked(A, "k", 9_000);
    scene.held(B, "l");
    assert_eq!(scene.enqueue(A, "l", 0), LockOutcome::Queued);
    granted(scene.enqueue(A, "m", 0));
    scene.locks.forget_waiters(scene.time(), A.connection, &mut scene.effects);
    assert_eq!((scene.totals().holders, scene.totals().waiters), (3, 0));
    for key in ["l", "m"] {
        assert_eq!(scene.wait(A, key, 0), LockOutcome::NotEnqueued);
    }
    assert_eq!(scene.renew("k", token, 5), Some(5));
    assert_eq!(scene.answered(), []);
}

#[test]
fn unclaimed_holds_are_released() {
    let mut scene = Scene::new(SETTINGS);
    let other = Owner { local: 1, ..A };
    let (kept, _lost) = (scene.held(A, "k"), scene.held(other, "l"));
    let ended = granted(scene.acquire(A, "m", (1, 10, 0))).token;
    scene.blocked(B, "k", 9_000);
    scene.blocked(B, "l", 9_000);
    assert_eq!(scene.after(10).locks.begin_claims(A.connection), 3);
    let claim = |scene: &Scene, owner, key, token| scene.locks.claim(scene.time(), owner, name(key), token);
    assert!(!claim(&scene, other, "k", kept), "another owner holds it");
    assert!(!claim(&scene, A, "k", ended));
    assert!(!claim(&scene, A, "m", ended), "the lease has ended");
    assert!(claim(&scene, A, "k", kept));
    let fresh = scene.held(A, "n");
    scene.locks.end_claims(scene.time(), A.connection, &mut scene.effects);
    assert_eq!(scene.answered(), [(2, true)], "the waiter holds L now");
    for (key, token) in [("k", kept), ("n", fresh)] {
        assert!(scene.release(key, token));
    }
}
