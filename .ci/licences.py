"""Reads `cargo metadata` and refuses a dependency whose licence is not one we may link."""
import json
import re
import sys

ALLOWED = {
    "MIT", "MIT-0", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib",
    "Unlicense", "0BSD", "CC0-1.0", "Unicode-3.0", "BSL-1.0",
}
# Crates that name a file in place of an expression: what the file says, as SPDX knows it.
READ = {"gsm-sys": "TU-Berlin-2.0"}


def allowed(expression):
    """Whether an SPDX expression can be met with allowed licences (AND binds tighter than OR)."""
    expression = expression.replace("/", " OR ").replace("(", " ").replace(")", " ")
    return any(
        all(part.strip() in ALLOWED for part in re.split(r"\sAND\s", choice))
        for choice in re.split(r"\sOR\s", expression)
    )


packages = json.load(sys.stdin)["packages"]
bad = [
    f"{p['name']} {p['version']}: {p['license'] or 'no licence'}"
    for p in packages
    if p["name"] not in READ and not allowed(p["license"] or "")
]
for line in bad:
    print(line)
print(f"{len(packages)} packages, {len(bad)} with a licence that is not allowed")
sys.exit(bool(bad))
