"""The names of the files in an EvaluationReport artifact. Others rely on them: they do not change."""

PAGE = "report.html"
FIGURES = "report.json"
