//! A unified difference of two texts, by lines.

use std::fmt::Write as _;

/// Lines of unchanged text around a change.
const CONTEXT: usize = 3;

/// The difference from `old` to `new`, empty when there is none.
pub fn unified(old: &str, new: &str, old_name: &str, new_name: &str, color: bool) -> String {
    if old == new {
        return String::new();
    }
    let a: Vec<&str> = old.lines().collect();
    let b: Vec<&str> = new.lines().collect();
    let edits = edits(&a, &b);
    let paint = |code: &str, text: &str| match color {
        true => format!("\x1b[{code}m{text}\x1b[0m\n"),
        false => format!("{text}\n"),
    };
    let mut out = paint("1", &format!("--- {old_name}")) + &paint("1", &format!("+++ {new_name}"));
    for (from, to) in hunks(&edits) {
        let hunk = &edits[from..to];
        let before = &edits[..from];
        let old_at = before.iter().filter(|e| e.sign != '+').count();
        let new_at = before.iter().filter(|e| e.sign != '-').count();
        let old_len = hunk.iter().filter(|e| e.sign != '+').count();
        let new_len = hunk.iter().filter(|e| e.sign != '-').count();
        let mut head = String::new();
        let first = |at: usize, len: usize| if len == 0 { at } else { at + 1 };
        _ = write!(
            head,
            "@@ -{},{old_len} +{},{new_len} @@",
            first(old_at, old_len),
            first(new_at, new_len)
        );
        out += &paint("36", &head);
        for edit in hunk {
            let text = format!("{}{}", edit.sign, edit.line);
            out += &match edit.sign {
                '-' => paint("31", &text),
                '+' => paint("32", &text),
                _ => format!("{text}\n"),
            };
        }
    }
    out
}

struct Edit<'a> {
    sign: char,
    line: &'a str,
}

/// The shortest way from `a` to `b`, by the longest common subsequence of what lies between common ends.
fn edits<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<Edit<'a>> {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a_rest, b_rest) = (&a[head..], &b[head..]);
    let tail = a_rest
        .iter()
        .rev()
        .zip(b_rest.iter().rev())
        .take_while(|(x, y)| x == y)
        .count();
    let am = &a_rest[..a_rest.len() - tail];
    let bm = &b_rest[..b_rest.len() - tail];
    // common[i][j]: how many lines am[i..] and bm[j..] have in common, in order.
    let wide = bm.len() + 1;
    let mut common = vec![0u32; (am.len() + 1) * wide];
    for i in (0..am.len()).rev() {
        for j in (0..bm.len()).rev() {
            common[i * wide + j] = if am[i] == bm[j] {
                common[(i + 1) * wide + j + 1] + 1
            } else {
                common[(i + 1) * wide + j].max(common[i * wide + j + 1])
            };
        }
    }
    let same = |line: &&'a str| Edit { sign: ' ', line };
    let mut out: Vec<Edit<'a>> = a[..head].iter().map(same).collect();
    let (mut i, mut j) = (0, 0);
    while i < am.len() || j < bm.len() {
        if i < am.len() && j < bm.len() && am[i] == bm[j] {
            out.push(same(&am[i]));
            i += 1;
            j += 1;
        } else if j == bm.len()
            || (i < am.len() && common[(i + 1) * wide + j] >= common[i * wide + j + 1])
        {
            out.push(Edit {
                sign: '-',
                line: am[i],
            });
            i += 1;
        } else {
            out.push(Edit {
                sign: '+',
                line: bm[j],
            });
            j += 1;
        }
    }
    out.extend(a_rest[a_rest.len() - tail..].iter().map(same));
    out
}

/// Ranges of edits that hold the changes and their context.
fn hunks(edits: &[Edit<'_>]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for (i, edit) in edits.iter().enumerate() {
        if edit.sign == ' ' {
            continue;
        }
        let from = i.saturating_sub(CONTEXT);
        let to = (i + 1 + CONTEXT).min(edits.len());
        match out.last_mut() {
            Some(last) if from <= last.1 => last.1 = to,
            _ => out.push((from, to)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn hunks_with_context() {
        let old: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let new = old
            .replace("line 3\n", "line three\n")
            .replace("line 18\n", "");
        expect![[r#"
            --- now
            +++ then
            @@ -1,6 +1,6 @@
             line 1
             line 2
            -line 3
            +line three
             line 4
             line 5
             line 6
            @@ -15,6 +15,5 @@
             line 15
             line 16
             line 17
            -line 18
             line 19
             line 20
        "#]]
        .assert_eq(&unified(&old, &new, "now", "then", false));
        assert_eq!(unified(&old, &old, "a", "b", false), "");
    }

    #[test]
    fn from_nothing() {
        expect![[r#"
            --- now
            +++ then
            @@ -0,0 +1,1 @@
            +a
        "#]]
        .assert_eq(&unified("", "a\n", "now", "then", false));
    }
}
