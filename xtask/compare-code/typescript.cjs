// What TypeScript's own parser finds in the files that are named on standard input, one JSON object a line.
// The folder in which `typescript` is installed is the first argument.
const fs = require("fs");
const path = require("path");
const ts = require(path.join(process.argv[2], "node_modules", "typescript"));

const isFunction = (node) => node && (ts.isArrowFunction(node) || ts.isFunctionExpression(node));

for (const file of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const source = ts.createSourceFile(file, fs.readFileSync(file, "utf8"), ts.ScriptTarget.Latest, true);
  if (source.parseDiagnostics.length > 0) {
    console.log(JSON.stringify({ file, what: "unreadable", name: "", line: 0 }));
    continue;
  }
  const tell = (what, at, name) => {
    const line = source.getLineAndCharacterOfPosition(at.getStart(source)).line + 1;
    console.log(JSON.stringify({ file, what, name, line }));
  };
  const named = (what, node) => {
    const name = node.name;
    tell(what, name, ts.isStringLiteralLike(name) ? name.text : name.getText(source));
  };
  const held = (node) =>
    (ts.isVariableDeclaration(node.parent) || ts.isPropertyDeclaration(node.parent) || ts.isPropertyAssignment(node.parent))
      ? node.parent.initializer === node
      : ts.isBinaryExpression(node.parent) && node.parent.right === node &&
        !node.parent.left.getText(source).endsWith("exports");
  const visit = (node) => {
    if (ts.isFunctionDeclaration(node) && node.name) named("function", node);
    else if (ts.isMethodDeclaration(node) || ts.isMethodSignature(node) || ts.isAccessor(node)) named("function", node);
    else if (ts.isConstructorDeclaration(node)) {
      const at = node.getChildren(source).find((child) => child.kind === ts.SyntaxKind.ConstructorKeyword);
      tell("function", at ?? node, "constructor");
    } else if (ts.isFunctionExpression(node) && node.name && !held(node)) named("function", node);
    else if (ts.isVariableDeclaration(node) && ts.isIdentifier(node.name) && isFunction(node.initializer)) named("function", node);
    else if (ts.isVariableDeclaration(node) && ts.isIdentifier(node.name) && node.initializer && ts.isClassExpression(node.initializer)) named("class", node);
    else if ((ts.isPropertyDeclaration(node) || ts.isPropertyAssignment(node)) && isFunction(node.initializer)) named("function", node);
    else if (ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.EqualsToken) {
      const left = node.left;
      const name = ts.isIdentifier(left) ? left : ts.isPropertyAccessExpression(left) ? left.name : undefined;
      const what = isFunction(node.right) ? "function" : ts.isClassExpression(node.right) ? "class" : undefined;
      if (name && what && name.text !== "exports") tell(what, left, name.text);
    } else if (ts.isClassDeclaration(node) && node.name) named("class", node);
    else if (ts.isClassExpression(node) && node.name && !held(node)) named("class", node);
    else if (ts.isInterfaceDeclaration(node) || ts.isEnumDeclaration(node) || ts.isTypeAliasDeclaration(node)) named("class", node);
    else if (ts.isModuleDeclaration(node) && !(node.flags & ts.NodeFlags.GlobalAugmentation) && !ts.isModuleDeclaration(node.parent)) {
      let name = node.name.text;
      for (let at = node.body; at && ts.isModuleDeclaration(at); at = at.body) name += "." + at.name.text;
      tell("class", node.name, name);
    } else if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier) {
      tell("import", node, node.moduleSpecifier.text);
    } else if (ts.isImportEqualsDeclaration(node) && ts.isExternalModuleReference(node.moduleReference)) {
      tell("import", node, node.moduleReference.expression.text);
    } else if (ts.isCallExpression(node) && node.arguments.length === 1 && ts.isStringLiteral(node.arguments[0])) {
      const callee = node.expression;
      if (callee.kind === ts.SyntaxKind.ImportKeyword || (ts.isIdentifier(callee) && callee.text === "require")) {
        tell("import", node, node.arguments[0].text);
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
}
