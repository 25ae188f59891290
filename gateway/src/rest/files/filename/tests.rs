use super::*;

#[test]
fn all_forms_of_a_filename_are_decoded() {
    for (parameters, name) in [
        // Browsers and curl.
        (&br#"filename="report (final).pdf""#[..], "report (final).pdf"),
        ("filename=\"чай.txt\"".as_bytes(), "чай.txt"),
        (br#"filename="say %22hi%22.txt""#, "say \"hi\".txt"),
        (br#"filename="50% off.txt""#, "50% off.txt"),
        (br#"filename="100%.txt""#, "100%.txt"),
        (br#"filename="a%2.txt""#, "a%2.txt"),
        (br#"filename="%zz.txt""#, "%zz.txt"),
        (br#"filename="a%ff.txt""#, "a%ff.txt"),
        (br#"filename="a b%20c.txt""#, "a b%20c.txt"),
        // aiohttp and React Native.
        (br#"filename="my%20report%20%28final%29.pdf""#, "my report (final).pdf"),
        (br#"filename="IMG%200001.jpg""#, "IMG 0001.jpg"),
        (br#"filename="%E8%8C%B6.png""#, "茶.png"),
        (br#"filename="a%2Fb.txt""#, "a/b.txt"),
        (br#"filename="_.txt"; filename*=utf-8''%E8%8C%B6.txt"#, "茶.txt"),
        (br#"filename*=UTF-8'en'a%20b.txt; filename=x"#, "a b.txt"),
        (br#"filename*=UTF-8''only.txt"#, "only.txt"),
        (br#"filename*="UTF-8''quoted%20.txt""#, "quoted .txt"),
        (br#"filename*=iso-8859-1''Zo%EB.txt"#, "Zoë.txt"),
        // A `filename*` that cannot be decoded.
        (br#"filename*=UTF-8''%FF.txt; filename="good.txt""#, "good.txt"),
        (br#"filename*=UTF-8''%4; filename="good.txt""#, "good.txt"),
        (br#"filename*=klingon''x; filename="good.txt""#, "good.txt"),
        (br#"filename*=plain.txt; filename="good.txt""#, "good.txt"),
        (br#"filename*=UTF-8''; filename="good.txt""#, "good.txt"),
        // .NET and PowerShell.
        (br#"filename="=?utf-8?B?6Iy2Pz8vLnBuZw==?=""#, "茶??/.png"),
        (br#"filename="=?utf-8?B?6Iy2LnBuZw?=""#, "茶.png"),
        (br#"filename="=?UTF-8?Q?Zo=C3=AB_a=2Etxt?=""#, "Zoë a.txt"),
        (br#"filename="=?iso-8859-1*en?q?Zo=EB?=""#, "Zoë"),
        (br#"filename="=?utf-8?B?6Iw=?= =?utf-8?B?ti5wbmc=?=""#, "茶.png"),
        (br#"filename="=?utf-8?B?w7Zh/w==?=""#, "=?utf-8?B?w7Zh/w==?="),
        (br#"filename="=?utf-8?X?aa?=""#, "=?utf-8?X?aa?="),
        (br#"filename="=?utf-8?B?YWE=?= and more""#, "=?utf-8?B?YWE=?= and more"),
        // Legacy code pages.
        (b"filename=\"Zo\xeb \x80.txt\"", "Zoë €.txt"),
        (b"filename=\"\xff%20.txt\"", "ÿ%20.txt"),
        (br#"filename="""#, ""),
        (b"", ""),
    ] {
        let header = [b"form-data; name=\"file\"; ", parameters].concat();
        assert_eq!(read(&header), name, "{}", parameters.escape_ascii());
    }
}
