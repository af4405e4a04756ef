//! `ring fsck`: what a data directory holds, without changing it.
use crate::args::{Common, Fsck};
use crate::stop::Stop;
pub(crate) fn run(_common: &Common, _args: &Fsck) -> Result<(), Stop> {
    Ok(())
}
