// Relative addresses, so that the page also works below a proxy's path.
const ui = SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: "none",
  // A field of a form that was left empty is not sent.
  plugins: [() => ({ components: { ParameterIncludeEmpty: () => null } })],
});
// And is not filled with an invented value, which is what a sample without a media type is for.
const { fn } = ui.getSystem();
const sample = fn.getSampleSchema;
fn.getSampleSchema = (schema, mediaType, ...more) => (mediaType === false ? "" : sample(schema, mediaType, ...more));
