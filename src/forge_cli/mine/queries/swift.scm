; extensions: .swift
; interpreters: swift
(class_declaration name: (type_identifier) @name body: (_) @body) @definition.class
(class_declaration "extension" . name: (_) @name body: (_) @body) @definition.implementation
(protocol_declaration name: (type_identifier) @name body: (_) @body) @definition.class
(function_declaration "func" . name: _ @name body: (_)? @body) @definition.function
(protocol_function_declaration "func" . name: (simple_identifier) @name) @definition.method
(init_declaration "init" @name body: (_)? @body) @definition.method
(deinit_declaration "deinit" @name body: (_)? @body) @definition.method
(subscript_declaration "subscript" @name (computed_property)? @body) @definition.method
(class_body
  (property_declaration
    name: (pattern bound_identifier: (simple_identifier) @name)
    computed_value: (computed_property) @body) @definition.method)
(enum_class_body
  (property_declaration
    name: (pattern bound_identifier: (simple_identifier) @name)
    computed_value: (computed_property) @body) @definition.method)
(typealias_declaration name: (type_identifier) @name) @definition.type

(call_expression . (simple_identifier) @reference.call)
(call_expression
  . (navigation_expression suffix: (navigation_suffix suffix: (simple_identifier) @reference.call)))

(import_declaration) @import
