// The ES modules of @grafana/ui import CommonJS packages in a way that only webpack understands, so its CommonJS form
// is used; and that of @grafana/data, for of registries and theme there must be one copy. For the same reason
// package.json has @grafana/data in the version that @grafana/ui asks for.
module.exports = { ...require('@grafana/data'), ui: require('@grafana/ui') };
