//! JSON with line breaks, made from the API's bytes without reading their meaning: numbers, order and escapes stay as they came.

/// Reformats valid JSON with two spaces per level and a line break at the end.
pub fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut bytes = json.iter().copied().peekable();
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', depth * 2));
    };
    while let Some(b) = bytes.next() {
        match b {
            b' ' | b'\n' | b'\r' | b'\t' => {}
            b'"' => {
                out.push(b);
                while let Some(b) = bytes.next() {
                    out.push(b);
                    match b {
                        b'\\' => out.extend(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'{' | b'[' => {
                out.push(b);
                while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
                if bytes.peek() == Some(&(b + 2)) {
                    out.extend(bytes.next());
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(b);
            }
            b',' => {
                out.push(b);
                line(&mut out, depth);
            }
            b':' => out.extend(b": "),
            b => out.push(b),
        }
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn keeps_the_bytes() {
        let json = br#"{"a":[1.0,"x\"{,",{}],"b":{"c":[ ]},"n":18446744073709551616}"#;
        let text = String::from_utf8(indent(json)).unwrap();
        expect![[r#"
            {
              "a": [
                1.0,
                "x\"{,",
                {}
              ],
              "b": {
                "c": []
              },
              "n": 18446744073709551616
            }
        "#]]
        .assert_eq(&text);
        let again = indent(text.as_bytes());
        assert_eq!(String::from_utf8(again).unwrap(), text);
    }
}
