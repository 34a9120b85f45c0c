"""Numbers, and the table they end in."""
import json
import statistics


def median(values):
    values = list(values)
    return statistics.median(values) if values else float("nan")


def show(value):
    if value is None or value != value:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


class Report:
    """Rows for reading, bars to be met, and every sample for whoever wants to look closer."""

    def __init__(self, machine, quick):
        self.data = {"machine": machine, "quick": quick, "rows": [], "bars": [], "samples": {}}

    def row(self, section, name, **columns):
        self.data["rows"].append({"section": section, "name": name} | columns)

    def bar(self, name, value, most=None, least=None, detail=""):
        """One goal: a value, often a ratio, that is to be at most or at least so much."""
        met = value <= most if most is not None else value >= least
        wanted = f"<= {most:g}" if most is not None else f">= {least:g}"
        self.data["bars"].append(
            {"name": name, "value": value, "wanted": wanted, "met": bool(met), "detail": detail})

    def unmeasured(self, name, why):
        self.data["bars"].append(
            {"name": name, "value": None, "wanted": "", "met": None, "detail": why})

    def samples(self, name, value):
        self.data["samples"][name] = value

    def table(self):
        machine = self.data["machine"]
        lines = [
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
            f"Linux {machine['kernel']}, load {machine['load_average']:.1f}, {machine['time']}",
            f"CRIU {machine['criu']}; {machine['gdb']}; {machine['redis'][:32]}",
        ]
        if self.data["quick"]:
            lines.append("QUICK: small targets, few repetitions: these numbers prove nothing")
        if machine["load_average"] > 0.5:
            lines.append("The machine was busy with other things when this began")
        section = None
        for row in self.data["rows"]:
            if row["section"] != section:
                section = row["section"]
                lines += ["", f"== {section}"]
            columns = "  ".join(
                f"{key} {show(value)}" for key, value in row.items()
                if key not in ("section", "name"))
            lines.append(f"  {row['name']:<34}  {columns}")
        lines += ["", "== goals", f"  {'':<46} {'measured':>9}  {'wanted':<8}"]
        for bar in self.data["bars"]:
            word = {True: "met", False: "NOT MET", None: "not measured"}[bar["met"]]
            lines.append(
                f"  {bar['name']:<46} {show(bar['value']):>9}  {bar['wanted']:<8} {word:<8}"
                f"  {bar['detail']}".rstrip())
        return "\n".join(lines) + "\n"

    def json(self):
        return json.dumps(self.data, indent=1) + "\n"
