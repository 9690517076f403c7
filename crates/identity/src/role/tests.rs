//! The table of the reference (2.5), row by row, over privileges that this version has.

use super::*;
use crate::access::Pattern;
use model::Resource;

fn may(role: &str, privilege: &str) -> bool {
    let role = BUILT_IN.iter().find(|r| r.name == role).unwrap();
    let (kind, verb) = privilege.split_once('.').unwrap();
    let says = |list: &[&str]| {
        list.iter()
            .any(|text| Pattern::parse(text).unwrap().matches(kind, verb))
    };
    says(role.allow) && !says(role.deny)
}

#[test]
fn each_role_gets_exactly_its_row() {
    // superadmin admin operator developer project-admin viewer monitor auditor application
    let table = [
        ("node.read", "yyyyyyyy-"),
        ("node.update", "yyy------"),
        ("node.delete", "yy-------"),
        ("node.drain", "yyy------"),
        ("snapshot.read", "yyyyyyyy-"),
        ("snapshot.create", "yyyyy----"),
        ("snapshot.restore", "yyy-y----"),
        ("backup.restore", "yyy-y----"),
        ("vm.read", "yyyyyyyy-"),
        ("vm.create", "yyyyy----"),
        ("vm.start", "yyyyy----"),
        ("vm.console", "yyyyy----"),
        ("vm.delete", "yyyyy----"),
        ("volume.delete", "yyyyy----"),
        ("network.read", "yyyyyyyy-"),
        ("network.create", "yy-yy----"),
        ("passthrough.bind", "yyy------"),
        ("user.read", "yy-----y-"),
        ("user.create", "yy-------"),
        ("role.update", "yy-------"),
        ("grant.create", "yy-------"),
        ("audit-chain.read", "yyy-yy-y-"),
        ("audit-chain.verify", "y------y-"),
        ("audit-chain.export", "y------y-"),
        ("setting.read", "yy-----y-"),
        ("setting.update", "yy-------"),
        ("metrics.read", "yy----yy-"),
        ("health.read", "yy----yy-"),
        ("member.create", "yy--y----"),
        ("quota.read", "yyyyyy-y-"),
        ("quota.update", "yy-------"),
        ("secret.reveal", "yy--y----"),
    ];
    let mut wrong = Vec::new();
    for (privilege, row) in table {
        for (role, wanted) in BUILT_IN.iter().zip(row.chars()) {
            if may(role.name, privilege) != (wanted == 'y') {
                wrong.push(format!("{} {privilege}: wanted {wanted}", role.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn their_patterns_can_be_read() {
    for role in BUILT_IN {
        for text in role.allow.iter().chain(role.deny) {
            assert!(Pattern::parse(text).is_some(), "{}: {text}", role.name);
        }
    }
}

/// Of the record of who did what an admin only reads: nothing that changes, proves or takes it away.
#[test]
fn an_admin_only_reads_the_record_of_what_he_did() {
    let kind = runtime::audit::AuditChain::KIND;
    let actions = kind.actions.iter().map(|action| action.verb);
    let streams = kind.streams.iter().map(|stream| stream.name);
    for verb in actions.chain(streams).chain(["create", "update", "delete"]) {
        let reads = verb == "rows";
        let never = ["create", "delete"].contains(&verb);
        assert_eq!(
            may("admin", &format!("audit-chain.{verb}")),
            reads || never,
            "{verb}"
        );
    }
}
