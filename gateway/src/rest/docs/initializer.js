// Relative addresses, so that the page also works below a proxy's path.
const ui = SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: "none",
  // Empty form fields are not sent.
  plugins: [() => ({ components: { ParameterIncludeEmpty: () => null } })],
});
// Swagger UI would fill empty form fields with invented values: those samples have no media type.
const { fn } = ui.getSystem();
const sample = fn.getSampleSchema;
fn.getSampleSchema = (schema, mediaType, ...more) => (mediaType === false ? "" : sample(schema, mediaType, ...more));
