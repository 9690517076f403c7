//! Every kind of this program, in the order of the import table.

use model::Result;
use runtime::Registry;

/// The registry that both roles share.
pub fn registry() -> Result<Registry> {
    Registry::new(&[
        runtime::SUBSYSTEMS,
        identity::SUBSYSTEMS,
        storage::SUBSYSTEMS,
        network::SUBSYSTEMS,
        compute::SUBSYSTEMS,
    ])
}
