"""`python -m service.documentation docs`: writes the pages that are generated from the code."""

from __future__ import annotations

import sys
from pathlib import Path

from certifier import operators_table
from service.app import create_app
from service.jobs import KEPT
from service.problems import MEDIA_TYPE, problem_table
from service.settings import Settings

HEADER = "<!-- Written by `python -m service.documentation docs`; a test keeps it current. -->\n\n"


def http_page() -> str:
    """docs/http.md."""
    routes = ["| route | what it does |", "|---|---|"]
    for path, operations in create_app(Settings()).openapi()["paths"].items():
        for method, operation in operations.items():
            first = operation["description"].split("\n")[0]
            routes.append(f"| `{method.upper()} {path}` | {first} |")
    return (
        f"{HEADER}# HTTP\n\nThe full description is the OpenAPI document at `/openapi.json`, shown at `/docs`.\n\n"
        "Distances are L2 norms in the units of the caller's inputs. Upper bounds are rounded up, lower bounds and "
        "radii down.\n\n" + "\n".join(routes) + "\n\n## Uploading\n\n"
        "`POST /certify` takes a form (`file`, and optionally `name`, `version` and `options` as JSON text) or a raw "
        "`application/octet-stream` body with the same three as query parameters. The body is hashed while it "
        "streams to disk. The same bytes with the same options under the same name are answered from the store "
        "(200); a new certificate is a 201. Without a name, the file's name is used, else `model-` and eight digits "
        "of its digest. Versions of a name count up by themselves and are never given twice, also not after a "
        "deletion; a given `version` that is taken by other bytes or options is a conflict (409). `/predict` and "
        "`/compare` use the newest version unless they name one.\n\n"
        "A form may bring a second file, `calibration`: inputs as `.npy`, rows as in `/predict`. They say which pairs "
        "of classes matter, and the search spends its time on the constants of those; its digest stands in the "
        "certificate's options. Constants are proved as without it and hold for all inputs.\n\n"
        "## While it runs\n\n"
        "Every certification is a job. `Prefer: respond-async` with `POST /certify` answers 202 at once, with the "
        "job and its path in `Location`; without it the answer is the certificate, and `GET /jobs` lists the job "
        "meanwhile. `GET /jobs/{job}` tells its `state` (`waiting`, `running`, `certified`, `refused`) and its "
        "`progress`: stage, share, the method that is being tried, and the smallest constants that are proved by "
        "now. They are proved, but nothing is certified before the self-test.\n\n"
        "`POST /jobs/{job}/cancel` ends the search alone: its method proves what it has found, others are not "
        "begun, and the certificate comes out with a note that begins with `search cancelled`. It is stored like "
        "any other, but the same upload is certified anew when it comes again without a `version`. "
        "`DELETE /jobs/{job}` abandons the certification: its process is stopped, nothing is stored, and whoever "
        "waits for it gets a 409. A server that is told to stop calls all searches off. A search never takes more "
        "than two thirds of `LIPCERT_CERTIFY_SECONDS`, whatever `options.seconds` asks for, and the certificate "
        "says where that ended it.\n\n"
        f"Jobs live as long as the server's process, and the last {KEPT} that have ended are still known. "
        "Certificates are stored whether or not anybody asks for their job.\n\n"
        "    curl -i -H 'Prefer: respond-async' -F file=@model.onnx localhost:8080/certify\n"
        "    curl localhost:8080/jobs/JOB\n"
        "    curl -X POST localhost:8080/jobs/JOB/cancel\n\n"
        "## Checking\n\n"
        "`POST /check` takes what `/certify` takes and answers 200 with a report: `refusals` has everything "
        "that certifying would refuse, in its order and with the same codes, and `operators` how often each "
        "operator occurs and whether it is supported. It reads the upload in a child process with the same "
        "limits, certifies nothing and keeps nothing. Without refusals, only the self-test or a limit can "
        "still fail. Of a TorchScript program that cannot be followed to its end, the first reason is given, "
        "and no operators.\n\n"
        "## Several inputs\n\nAll inputs of a model are perturbed together, unless `options.inputs` names those that "
        "are; the others' values are given as `options.fixed_inputs`, by name: a number for all entries or nested "
        "lists of the declared shape. They become constants of the certified network and stand in the certificate "
        "with their digests (`model.fixed_inputs`). Where several inputs are perturbed, `/predict` and `/compare` take "
        "an object from input names to rows, or joint rows in the order of the certificate's `model.inputs`.\n\n"
        f"## Errors\n\nEvery error is a problem document (RFC 9457) of media type `{MEDIA_TYPE}` with `type`, "
        "`title`, `status`, `detail`, `instance`, and besides these `code`, which is stable and meant for programs, "
        "and `details`, the facts of the refusal. A 503 says in `Retry-After` when to try again.\n\n" + problem_table()
    )


def operators_page() -> str:
    """docs/operators.md."""
    known, refused = (
        ["| operator | versions | what it computes |", "|---|---|---|"],
        ["| operator | why |", "|---|---|"],
    )
    for entry in operators_table():
        summary = entry.summary.replace("|", "\\|")
        if entry.supported:
            known.append(f"| {entry.operator} | {entry.versions} | {summary} |")
        else:
            refused.append(f"| {entry.operator} | {summary} |")
    return (
        f"{HEADER}# Operators\n\n"
        "Operators of the standard ONNX domain that have a rule, with the operator-set versions that the rule was "
        "written for. Whatever depends only on constants is folded first and needs no rule.\n\n"
        + "\n".join(known)
        + "\n\n## Refused on purpose\n\n"
        + "\n".join(refused)
        + "\n\nEvery other operator is refused by name as well.\n"
    )


PAGES = {"http.md": http_page, "operators.md": operators_page}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (Path(sys.argv[1]) / page).write_text(write(), encoding="utf-8")
