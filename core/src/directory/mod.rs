//! The directory: who is registered, and who holds a replica of which group. A group of its own, kept by up to five
//! members, whose leader gives the orders.
//!
//! The directory's state is one value ([`Table`]) in group 0, replaced by compare-and-set on its revision, so that a
//! leader that has been deposed without knowing it cannot change anything. Its leader runs the [`Director`]: it takes up
//! what members ask for, works out the next table, writes it, and tells everyone. The rest follows from the table that
//! a node has seen last, and tables only get newer:
//!
//! * a group's leader changes the membership step by step ([`Assignment::next_step`]) and says when it is done;
//! * a member makes the replicas that the table gives it and drops those that it names no more ([`Table::duty`]).
//!
//! What keeps that right:
//!
//! 1. **A replica that the table does not name is in no membership that is or can come into force.** A new order keeps
//!    the replicas of the orders before it as `retiring` until the group's leader has said that the membership of
//!    the new order is *committed*; a membership of an earlier order can then not come into force again, because
//!    every later leader has that entry, and follows only newer orders (2).
//! 2. **A group follows an order only if it is newer than the one it followed last**, which is part of its replicated
//!    membership. A leader with an old table does nothing.
//! 3. **Replica ids are given once.** The next id is part of the table. A member whose directory was lost has another id
//!    itself, so it never speaks under an old replica's name.
//! 4. **A voter goes only when its substitute has caught up**, and a member that is away without a substitute stays;
//!    unless others go, too, and those who are left could not decide without it.
//! 5. **A replica that the table names no more is not listened to** ([`Table::is_void`]): by 1 nobody needs it, and a
//!    member that was forgotten may come back on an old copy of its directory, without what it promised later.
//!
//! Everything that is asked for may be lost, late or repeated: who asks repeats it until the table shows it.
//!
//! | file | owns |
//! |---|---|
//! | `table.rs` | the value and its stored form |
//! | `plan.rs` | the next table |
//! | `follow.rs` | what leaders and members do about a table |
//! | `director.rs` | the leader's part |

mod director;
mod follow;
mod plan;
mod table;
#[cfg(test)]
mod tests;

pub use director::{Ask, Director, Settings as DirectorSettings};
pub use follow::{Duty, Step};
pub(crate) use plan::directory_voters;
pub use plan::{Change, ChangeRefused, Placement, Registration};
pub use table::{Assignment, Registered, Standing, Table};
