//! Catches the panics of a run and keeps what they said, instead of printing it at once.

use std::cell::RefCell;
use std::panic::{self, UnwindSafe};
use std::sync::Once;

thread_local! {
    /// Some while a run on this thread is watched: what its first panic said.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `body`; a panic in it becomes its message and place.
///
/// # Errors
/// What the panic said.
pub(crate) fn catch<T>(body: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let watched = SAID.with_borrow_mut(|said| match said {
                Some(said) => {
                    if said.is_empty() {
                        *said = info.to_string();
                    }
                    true
                }
                None => false,
            });
            if !watched {
                before(info);
            }
        }));
    });
    SAID.set(Some(String::new()));
    let result = panic::catch_unwind(body);
    let said = SAID.take().unwrap_or_default();
    result.map_err(|_| said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_kept_with_its_place() {
        assert_eq!(catch(|| 3), Ok(3));
        let said = catch(|| panic!("so {}", 1)).expect_err("it panics");
        assert!(said.contains("so 1") && said.contains("panics.rs"), "{said}");
    }
}
