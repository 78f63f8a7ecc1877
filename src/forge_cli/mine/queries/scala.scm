; extensions: .scala .sc .sbt
; interpreters: scala scala-cli amm
(class_definition name: (_) @name body: (_)? @body) @definition.class
(object_definition name: (_) @name body: (_)? @body) @definition.class
(trait_definition name: (_) @name body: (_)? @body) @definition.class
(enum_definition name: (_) @name body: (_)? @body) @definition.class
(package_object name: (_) @name body: (_)? @body) @definition.class
(given_definition name: (_) @name body: [(template_body) (with_template_body)] @body)
  @definition.class
(extension_definition
  parameters: (parameters . (parameter type: (_) @name)) body: (_) @body)
  @definition.implementation
(function_definition name: (_) @name body: (_)? @body) @definition.function
(function_declaration name: (_) @name) @definition.function
(val_definition pattern: (identifier) @name value: (lambda_expression (_) @body .))
  @definition.function
(type_definition name: (_) @name) @definition.type

(call_expression function: (identifier) @reference.call)
(call_expression function: (field_expression field: (identifier) @reference.call))
(call_expression function: (generic_function function: (identifier) @reference.call))
(call_expression
  function: (generic_function function: (field_expression field: (identifier) @reference.call)))
(instance_expression (type_identifier) @reference.call)
(instance_expression (generic_type type: (type_identifier) @reference.call))

(import_declaration) @import
