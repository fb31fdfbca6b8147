"""Holds what the demo's clients printed beside the quotas of the CDI spec: asked, seen, stopped at, and a verdict a row.

    table.py SPEC FOLDER SLICE...   the table; exit status 1 when a row is off
    table.py --count SPEC           how many devices the spec offers
    table.py --quota SPEC SLICE     the slice's VRAM limit in bytes
    table.py --paths SPEC SKIP...   every path of this machine that the spec mounts, separated by colons

The quota is read from the hook's arguments in the spec, which is where it is enforced from.
"""
import json
import os
import sys

UNIT = 512  # the limiter counts in these


def human(count):
    for suffix, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {suffix}"
    return f"{count} B"


def quota(spec, slice_name):
    for device in spec["devices"]:
        if device["name"] == slice_name:
            for hook in device["containerEdits"]["hooks"]:
                for argument in hook["args"]:
                    if argument.startswith("--vram-limit="):
                        return int(argument.split("=")[1])
    raise SystemExit(f"no device {slice_name} with a quota in the spec")


def paths(spec, skip):
    edits = [spec.get("containerEdits", {})] + [d["containerEdits"] for d in spec["devices"]]
    found = set()
    for edit in edits:
        found.update(m["hostPath"] for m in edit.get("mounts", []))
        found.update(n.get("hostPath", n["path"]) for n in edit.get("deviceNodes", []))
    return sorted(p for p in found if os.path.exists(p) and not any(p.startswith(s + "/") for s in skip))


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.loads(file.read().strip().splitlines()[-1])


def judge_cuda(asked, seen):
    """Stopped exactly: never above the quota, and each refused request would have gone above it."""
    used = seen["context"] + seen["allocated"]
    faults = []
    if seen["devices"] != 1:
        faults.append(f"sees {seen['devices']} GPUs")
    if seen["total"] != asked or seen["info_total"] != asked:
        faults.append(f"believes in {human(seen['total'])}")
    if used > asked:
        faults.append(f"{used - asked} bytes above the quota")
    for refusal in seen["refusals"]:
        left = asked - seen["context"] - refusal["held"]
        if -(-refusal["request"] // UNIT) * UNIT <= left:
            faults.append(f"{human(refusal['request'])} refused with {human(left)} left")
    at = f"{human(used)} = {human(seen['allocated'])} + {human(seen['context'])} context, {asked - used} B left"
    return human(seen["total"]), at, "; ".join(faults) or "stopped exactly"


def judge_nvml(asked, seen, cuda):
    if len(seen["devices"]) != 1:
        return "-", "-", f"sees {len(seen['devices'])} GPUs"
    device, used = seen["devices"][0], cuda["context"] + cuda["allocated"]
    faults = []
    if device["total"] != asked:
        faults.append(f"believes in {human(device['total'])}")
    if device["used"] != used:
        faults.append(f"says {human(device['used'])} are used")
    if len(device["processes"]) != 1:
        faults.append(f"lists {len(device['processes'])} processes")
    return human(device["total"]), f"reports {human(device['used'])} used", "; ".join(faults) or "agrees"


def rows(spec, folder, slices):
    for name in slices:
        asked, cuda = quota(spec, name), read(f"{folder}/{name}.cuda")
        seen, at, verdict = judge_cuda(asked, cuda)
        yield [name, "cuda-bindings", human(asked), seen, at, verdict], verdict == "stopped exactly"
        if os.path.exists(f"{folder}/{name}.nvml"):
            seen, at, verdict = judge_nvml(asked, read(f"{folder}/{name}.nvml"), cuda)
            yield [name, "nvidia-ml-py", human(asked), seen, at, verdict], verdict == "agrees"


def table(spec, folder, slices):
    judged = list(rows(spec, folder, slices))
    lines = [["VGPU", "CLIENT", "ASKED", "SEEN", "STOPPED AT", "VERDICT"]] + [line for line, _ in judged]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print()
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print()
    good = sum(right for _, right in judged)
    print(f"{good} of {len(judged)} rows as promised")
    return good == len(judged)


def main(arguments):
    option = arguments.pop(0) if arguments[0].startswith("--") else None
    with open(arguments[0], encoding="utf-8") as file:
        spec = json.load(file)
    if option == "--count":
        print(f"{len(spec['devices'])} devices of {spec['kind']}")
    elif option == "--quota":
        print(quota(spec, arguments[1]))
    elif option == "--paths":
        print(":".join(paths(spec, arguments[1:])))
    else:
        sys.exit(0 if table(spec, arguments[1], arguments[2:]) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
