//! Queries over the committed state of the tasks of this process, through read views; never touches a task.
