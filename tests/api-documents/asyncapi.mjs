// Prints the errors that AsyncAPI's own parser finds in the given document; prints nothing if the document is valid.
import { Parser, fromFile } from "@asyncapi/parser";

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
for (const { path, message } of diagnostics) console.error(`${process.argv[2]}: ${path.join(".")}: ${message}`);
process.exit(document && diagnostics.length === 0 ? 0 : 1);
