"""What Python's own parser finds in the files that are named on standard input, one JSON object a line."""

import ast
import json
import sys


def tell(**found):
    print(json.dumps(found))


for path in sys.stdin.read().splitlines():
    with open(path, "rb") as file:
        source = file.read()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        tell(file=path, what="unreadable", name="", line=0)
        continue
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            tell(file=path, what="function", name=node.name, line=node.lineno)
        elif isinstance(node, ast.ClassDef):
            tell(file=path, what="class", name=node.name, line=node.lineno)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                tell(file=path, what="import", name=alias.name, line=node.lineno)
        elif isinstance(node, ast.ImportFrom):
            tell(file=path, what="import", name="." * node.level + (node.module or ""), line=node.lineno)
