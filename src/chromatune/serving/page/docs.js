// The API's description, drawn by Swagger UI from files of this server.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });
