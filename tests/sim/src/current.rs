//! The world that runs on this OS thread, for whoever is called back from inside of a host: the fault layer before a
//! call, the trace of a commit. One run at a time on each OS thread; different OS threads do not share anything.

use std::cell::RefCell;
use std::rc::Rc;

use broker::direct::Operation;

use crate::world::World;

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// Makes a world the current one until the guard is dropped.
pub fn enter(world: &Rc<World>) -> Guard {
    CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(world)));
    Guard
}

/// Ends the world's time on this OS thread.
pub struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        CURRENT.with(|current| *current.borrow_mut() = None);
    }
}

/// Calls the current world, if there is one.
pub fn with(call: impl FnOnce(&World)) {
    let world = CURRENT.with(|current| current.borrow().clone());
    if let Some(world) = world {
        call(&world);
    }
}

/// What the fault layer calls before every call of a client.
pub fn interrupt(who: &str, _operation: Operation) {
    with(|world| world.interrupted(who));
}
